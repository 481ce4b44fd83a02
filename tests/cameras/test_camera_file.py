"""A camera file: what each name does to a frame, and that a wrong file is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from painted_field import painted

from edge_mil.cameras import CameraFile, Imperfections, ScanPlan, SlideFile, VirtualMicroscope
from edge_mil.errors import UsageError
from edge_mil.imaging.quality.blocking import blocking
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import UInt8Array

LIGHT = painted(320, 256)


def taken(camera: CameraFile, light: UInt8Array = LIGHT) -> UInt8Array:
    return camera.applied(light, np.random.default_rng(0))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "camera.json").write_text("{}")
    assert np.array_equal(taken(CameraFile.read(tmp_path / "camera.json")), LIGHT)


def test_the_lamp_its_colour_and_its_gradient_scale_the_levels() -> None:
    glass = np.full((64, 100, 3), 200, np.uint8)
    made = taken(CameraFile(lamp=0.5, lamp_colour=(1.0, 0.9, 0.8), gradient=0.5), glass)
    assert made[0, 0].tolist() == [100, 90, 80]
    assert made[0, -1].tolist() == [50, 45, 40]


def test_colours_are_mixed_bent_inverted_and_exchanged() -> None:
    pixel = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    swap = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    assert taken(CameraFile(colour_matrix=swap), pixel)[0, 0].tolist() == [100, 200, 50]
    assert taken(CameraFile(channels="bgr"), pixel)[0, 0].tolist() == [50, 100, 200]
    assert taken(CameraFile(channels="green"), pixel)[0, 0].tolist() == [100, 100, 100]
    assert taken(CameraFile(negative=True), pixel)[0, 0].tolist() == [55, 155, 205]
    assert taken(CameraFile(fluorescence=True), pixel)[0, 0].tolist() == [0, 155, 0]
    assert taken(CameraFile(gamma=2.0), pixel)[0, 0, 0] == round(255 * (200 / 255) ** 2)


def test_optics_and_electronics_change_detail() -> None:
    detail = LIGHT.astype(float).std()
    assert taken(CameraFile(blur_px=3.0)).astype(float).std() < 0.9 * detail
    assert taken(CameraFile(sharpening=2.0)).astype(float).std() > detail
    assert (taken(CameraFile(noise=5.0)).astype(float) - LIGHT).std() == pytest.approx(5.0, abs=0.7)
    assert blocking(taken(CameraFile(jpeg=5)), TissueTest()) > 1.2
    doubled = taken(CameraFile(doubled_px=(16.0, 0.0))).astype(float)
    copy = (LIGHT[:, 16:].astype(float) + LIGHT[:, :-16]) / 2
    assert np.abs(doubled[:, 16:] - copy).max() <= 1


def test_the_virtual_microscope_takes_its_fields_through_it(tmp_path: Path) -> None:
    from tiled_tiff import write_tiled_tiff

    path = write_tiled_tiff(tmp_path / "slide.tiff", LIGHT, 0.5)
    faults = Imperfections(camera=CameraFile(lamp=0.5, noise=2.0))
    microscope = VirtualMicroscope(SlideFile(path), ScanPlan(), (160, 128), faults=faults)
    frame = next(iter(microscope.frames()))
    again = microscope.take(microscope.shot_of(frame))
    microscope.close()
    assert np.array_equal(frame.pixels, again.pixels)
    assert frame.pixels.mean() == pytest.approx(LIGHT[:128, :160].mean() / 2, rel=0.05)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"lamp": -1}, "lamp is -1; expected 0 to 4"),
        ({"gamma": 0}, "gamma"),
        ({"jpeg": 0}, "jpeg is 0; expected 1 to 100"),
        ({"colour_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 99]]}, "colour_matrix is 99"),
        ({"bright": 2}, "bright.*any of blur_px"),
        ({"channels": "cmyk"}, "channels"),
        ([1], "no camera file"),
    ],
)
def test_a_wrong_file_is_refused_in_words(tmp_path: Path, document: object, words: str) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=words):
        CameraFile.read(path)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        CameraFile.read(tmp_path / "none.json")
    (tmp_path / "camera.json").write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match="no camera file"):
        CameraFile.read(tmp_path / "camera.json")
    (tmp_path / "large.json").write_text(" " * 70_000 + "{}")
    with pytest.raises(UsageError, match="larger than"):
        CameraFile.read(tmp_path / "large.json")
