"""What holds for every camera: the virtual microscope, a folder of images, the fake camera."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bundle import write_small_bundle
from textured_slide import textured_slide
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import Imperfections, factory, open_camera
from edge_mil.cli.stream.camera import stage_frame
from edge_mil.protocols import Camera
from edge_mil.session import Session, SessionSettings
from edge_mil.testing.camera import FakeCamera
from edge_mil.types import Frame, Verdict

MPP = 0.5
FOV = (200, 150)
FAULTS = Imperfections(jitter_um=2.0, defocus=0.3, vignette=0.3, noise=2.0, rotation_deg=3.0)
HAND = Imperfections(stage=False)

CAMERAS: dict[str, Callable[[Path], Camera]] = {
    "virtual microscope": lambda files: open_camera(str(files / "slide.tiff"), fov=FOV),
    "virtual microscope with faults": lambda files: open_camera(
        str(files / "slide.tiff"), fov=FOV, faults=FAULTS
    ),
    "virtual microscope, moved by hand": lambda files: open_camera(
        str(files / "slide.tiff"), fov=FOV, path="hand", frames=20, faults=HAND
    ),
    "image folder": lambda files: open_camera(str(files / "images"), mpp=MPP),
    "image folder, independent": lambda files: open_camera(
        str(files / "images"), mpp=MPP, independent=True
    ),
    "fake": lambda files: FakeCamera(),
    "fake, moved by hand": lambda files: FakeCamera(positions="none"),
    "fake, independent": lambda files: FakeCamera(positions="independent", mpp=None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and with images of it."""
    folder = tmp_path_factory.mktemp("cameras")
    slide = textured_slide(620, 460)
    write_tiled_tiff(folder / "slide.tiff", slide, mpp=MPP)
    (folder / "images").mkdir()
    for x in (0, 150, 300):
        crop = np.ascontiguousarray(slide[100:250, x : x + 200, ::-1])
        assert cv2.imwrite(str(folder / "images" / f"a_x{x * MPP}_y50.png"), crop)
    return folder


@pytest.fixture(params=CAMERAS.values(), ids=CAMERAS.keys())
def opened(request: pytest.FixtureRequest, files: Path) -> Callable[[], Camera]:
    """Return what opens one and the same camera."""
    return lambda: request.param(files)


def taken(camera: Camera) -> list[Frame]:
    return list(camera.frames())


def location(frame: Frame) -> tuple[object, ...]:
    return frame.x_um, frame.y_um, frame.location_id


def test_frames_are_rgb_uint8_in_one_block_of_memory(opened: Callable[[], Camera]) -> None:
    camera = opened()
    frames = taken(camera)
    camera.close()
    assert len(frames) >= 3
    for frame in frames:
        assert (frame.pixels.dtype, frame.pixels.ndim, frame.pixels.shape[2]) == (np.uint8, 3, 3)
        assert frame.pixels.flags.c_contiguous
        assert frame.name


def test_frames_have_positions_or_locations_or_neither(opened: Callable[[], Camera]) -> None:
    camera = opened()
    frames = taken(camera)
    camera.close()
    kinds = {(frame.x_um is not None, bool(frame.location_id)) for frame in frames}
    assert len(kinds) == 1
    assert camera.hand_moved == (kinds == {(False, False)})


def test_the_pixel_size_is_positive_or_unknown(opened: Callable[[], Camera]) -> None:
    camera = opened()
    assert camera.mpp is None or (math.isfinite(camera.mpp) and camera.mpp > 0)
    camera.close()


def test_a_camera_that_is_opened_twice_gives_the_same_frames(
    opened: Callable[[], Camera],
) -> None:
    cameras = opened(), opened()
    for a, b in zip(*(camera.frames() for camera in cameras), strict=True):
        assert (location(a), a.name) == (location(b), b.name)
        assert np.array_equal(a.pixels, b.pixels)
    for camera in cameras:
        camera.close()


def test_frames_begins_anew(opened: Callable[[], Camera]) -> None:
    camera = opened()
    first, again = taken(camera), taken(camera)
    camera.close()
    assert [frame.pixels.shape for frame in first] == [frame.pixels.shape for frame in again]
    # The error of a stage and a focus by chance are new with every visit.
    if camera.retakes <= 1:
        assert list(map(location, first)) == list(map(location, again))
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=True))


def test_a_camera_that_is_left_early_leaves_no_thread(opened: Callable[[], Camera]) -> None:
    before = threading.active_count()
    camera = opened()
    frames = camera.frames()
    next(frames)
    del frames
    camera.close()
    assert threading.active_count() <= before


def test_closing_twice_does_no_harm(opened: Callable[[], Camera]) -> None:
    camera = opened()
    camera.close()
    camera.close()


def test_the_outline_lies_inside_the_area(opened: Callable[[], Camera]) -> None:
    camera = opened()
    area = camera.area
    for region in camera.tissue:
        assert min(region.width_um, region.height_um) > 0
        if area is not None:
            assert area.x_um <= region.x_um
            assert area.y_um <= region.y_um
            assert region.x_um + region.width_um <= area.x_um + area.width_um
            assert region.y_um + region.height_um <= area.y_um + area.height_um
    camera.close()


def test_the_stage_affine_has_the_scale_of_the_pixel_size(opened: Callable[[], Camera]) -> None:
    camera = opened()
    if camera.stage_affine is not None:
        a, b, c, d = camera.stage_affine
        assert math.sqrt(abs(a * d - b * c)) == pytest.approx(camera.mpp)
    camera.close()


def test_a_refused_field_is_taken_again_though_its_pixels_are_gone(
    opened: Callable[[], Camera],
) -> None:
    camera = opened()
    frame = taken(camera)[2]
    if camera.retakes:
        again = camera.retake(replace(frame, pixels=frame.pixels[:1, :1].copy()))
        assert again.pixels.shape == frame.pixels.shape
        assert again.location_id == frame.location_id
        if frame.x_um is not None and frame.y_um is not None:
            assert again.x_um is not None
            assert again.y_um is not None
            away = math.hypot(again.x_um - frame.x_um, again.y_um - frame.y_um)
            assert away <= 10 * FAULTS.jitter_um
    camera.close()


def test_a_camera_to_be_calibrated_shows_clean_glass(opened: Callable[[], Camera]) -> None:
    camera = opened()
    if camera.calibration_name:
        shape = taken(camera)[0].pixels.shape
        glass = list(camera.glass_frames(3))
        assert [frame.pixels.shape for frame in glass] == [shape] * 3
        middle = [
            np.median(frame.pixels[shape[0] // 2 - 20 : shape[0] // 2 + 20]) for frame in glass
        ]
        assert min(middle) > 200
    camera.close()


def test_what_is_behind_the_frames_has_their_pixel_size(opened: Callable[[], Camera]) -> None:
    camera = opened()
    if camera.slide is not None:
        assert camera.slide.mpp == camera.mpp
        overview, zoom = camera.slide.read_whole(100)
        assert overview.shape[1] * zoom == pytest.approx(camera.slide.width_px, abs=zoom)
    camera.close()


def test_a_session_is_opened_with_what_the_camera_declares(opened: Callable[[], Camera]) -> None:
    camera = opened()
    declared = stage_frame(camera)
    assert declared.absent == camera.hand_moved
    assert bool(declared.pixel_size_affine) == (camera.stage_affine is not None)
    assert declared.HasField("area") == (camera.area is not None)
    camera.close()


def test_a_third_camera_takes_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (
        lambda source: source.startswith("fake:"),
        lambda _, options: FakeCamera(mpp=options.mpp),
    )
    monkeypatch.setattr(factory, "OPENERS", (*factory.OPENERS, line))
    camera = open_camera("fake:0", mpp=0.25)
    assert isinstance(camera, FakeCamera)
    assert camera.mpp == 0.25


@pytest.mark.parametrize("positions", ["stage", "none"])
def test_the_fields_of_the_fake_camera_pass_the_gates_and_are_located(
    positions: str, tmp_path: Path
) -> None:
    camera = FakeCamera(positions=positions)  # type: ignore[arg-type]
    bundle = write_small_bundle(tmp_path / "bundle", mpp=MPP)
    settings = SessionSettings(mpp=MPP, stage=not camera.hand_moved)
    with Session(bundle, settings=settings) as session:
        verdicts = {session.add(frame).verdict for frame in camera.frames()}
        assert session.score() is not None
    assert verdicts <= {Verdict.ACCEPTED, Verdict.DUPLICATE}


def test_the_fake_camera_needs_numpy_only() -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['cv2', 'openslide', 'onnxruntime', 'h5py']))"
        "; from edge_mil.testing.camera import FakeCamera; print(len(list(FakeCamera().frames())))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "12"
