"""The virtual microscope, on a slide that OpenSlide really reads."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import SlideFile, VirtualMicroscope, open_camera
from edge_mil.errors import NotThereYetError, PixelSizeError, SourceError, UsageError
from edge_mil.types import UInt8Array

WIDTH, HEIGHT = 700, 560


def picture() -> UInt8Array:
    """Return glass with a block of tissue right below the middle, all pixels different enough."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(230, 250, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[300:500, 400:650] = rng.integers(60, 140, (200, 250, 3), dtype=np.uint8)
    return pixels


PIXELS = picture()


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiled_tiff(tmp_path_factory.mktemp("slide") / "s.tiff", PIXELS, mpp=0.5)


def test_fields_show_the_pixels_at_their_position(slide: Path) -> None:
    camera = open_camera(str(slide), fov=(200, 151), overlap=0.1)
    assert isinstance(camera, VirtualMicroscope)
    assert camera.mpp == pytest.approx(0.5)
    frames = list(camera.frames())
    assert len(frames) == len(camera.corners) == 4 * 5
    for frame in frames:
        assert frame.pixels.shape == (151, 200, 3)
        assert frame.x_um is not None
        assert frame.y_um is not None
        x, y = frame.x_um / camera.mpp - 100, frame.y_um / camera.mpp - 75.5
        assert (x, y) == (pytest.approx(round(x)), pytest.approx(round(y)))
        left, top = round(x), round(y)
        assert np.array_equal(frame.pixels, PIXELS[top : top + 151, left : left + 200])
        assert frame.capture_time_s == pytest.approx(time.time(), abs=60)
    camera.close()


def test_hovering_stays_where_the_tissue_is(slide: Path) -> None:
    camera = open_camera(str(slide), fov=(200, 160), path="hover", frames=7)
    frames = list(camera.frames())
    assert len(frames) == 7 + len(camera.corners)  # type: ignore[attr-defined]
    assert len({(f.x_um, f.y_um) for f in frames[:7]}) == 1
    assert frames[0].pixels.mean() < 150
    camera.close()


def test_random_shows_the_same_fields_as_serpentine(slide: Path) -> None:
    seen = []
    for path in ("serpentine", "random"):
        camera = open_camera(str(slide), fov=(200, 160), path=path, seed=3)
        seen.append([(f.x_um, f.y_um, f.pixels.tobytes()) for f in camera.frames()])
        camera.close()
    assert seen[0] != seen[1]
    assert sorted(seen[0]) == sorted(seen[1])


def test_no_field_comes_faster_than_asked(slide: Path) -> None:
    camera = open_camera(str(slide), fov=(100, 100), frames=6, fps=50)
    started = time.monotonic()
    assert len(list(camera.frames())) == 6
    assert time.monotonic() - started >= 5 / 50
    camera.close()


def test_a_stream_that_is_left_early_leaves_no_thread(slide: Path) -> None:
    camera = open_camera(str(slide), fov=(100, 100))
    frames = camera.frames()
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    camera.close()


def test_the_default_field_shrinks_to_a_small_slide_but_a_named_one_is_refused(
    slide: Path,
) -> None:
    camera = open_camera(str(slide))
    assert next(iter(camera.frames())).pixels.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UsageError, match=r"1024x768.*700x560"):
        open_camera(str(slide), fov=(1024, 768))


def test_a_slide_without_a_pixel_size_is_refused_unless_it_is_given(tmp_path: Path) -> None:
    path = str(write_tiled_tiff(tmp_path / "plain.tiff", PIXELS))
    with pytest.raises(PixelSizeError, match="--mpp"):
        open_camera(path)
    assert open_camera(path, mpp=0.25).mpp == 0.25
    with pytest.raises(PixelSizeError, match="--mpp"):
        open_camera(path, mpp=0.0)


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    path = write_tiled_tiff(tmp_path / "wide.tiff", PIXELS, mpp=0.5, mpp_y=0.52)
    with pytest.raises(PixelSizeError, match="not square"):
        SlideFile(path)
    assert SlideFile(path, mpp=0.5).mpp == 0.5


@pytest.mark.parametrize("mpp", [0.25, 0.47, 0.53, 1.0])
def test_a_pixel_size_that_the_file_contradicts_is_refused_unless_the_user_insists(
    slide: Path, mpp: float
) -> None:
    with pytest.raises(PixelSizeError, match=rf"--mpp is {mpp:g} and .* itself says 0\.5.*insist"):
        open_camera(str(slide), mpp=mpp)
    assert open_camera(str(slide), mpp=mpp, insist_mpp=True).mpp == mpp


@pytest.mark.parametrize("mpp", [0.48, 0.5, 0.52])
def test_a_pixel_size_that_was_only_rounded_is_taken(slide: Path, mpp: float) -> None:
    assert open_camera(str(slide), mpp=mpp).mpp == mpp


def test_what_is_no_slide_is_refused_in_one_sentence(tmp_path: Path) -> None:
    torn = tmp_path / "torn.svs"
    torn.write_bytes(b"II*\0 this is no slide")
    for source in (torn, tmp_path / "missing.svs"):
        with pytest.raises(SourceError, match=r"(torn|missing)\.svs"):
            open_camera(str(source))


@pytest.mark.parametrize("source", ["cv2:0", "mm:scope.cfg"])
def test_live_cameras_are_not_there_yet(source: str) -> None:
    with pytest.raises(NotThereYetError, match="not there yet"):
        open_camera(source)


def test_what_is_beyond_the_scan_is_white(slide: Path) -> None:
    opened = SlideFile(slide)
    corner = opened.read(WIDTH - 10, HEIGHT - 10, 30, 20)
    assert np.array_equal(corner[:10, :10], PIXELS[-10:, -10:])
    assert (corner[10:] == 255).all()
    assert (corner[:, 10:] == 255).all()
    opened.close()


def test_an_overview_shows_the_whole_slide(slide: Path) -> None:
    opened = SlideFile(slide)
    small, zoom = opened.read_whole(100)
    assert zoom == 7
    assert small.shape == (HEIGHT // 7, WIDTH // 7, 3)
    assert np.array_equal(small, PIXELS[::7, ::7])
    opened.close()


@pytest.mark.shared
def test_a_scanned_slide_plays() -> None:
    camera = open_camera(str(shared("data/slides/cmu1_small_region.svs")), frames=3)
    frames = list(camera.frames())
    assert camera.mpp == pytest.approx(0.499)
    assert [frame.pixels.shape for frame in frames] == [(768, 1024, 3)] * 3
    camera.close()
