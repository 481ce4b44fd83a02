"""A folder of images as a camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from shared_data import shared

from edge_mil.cameras import ImageFolder, open_camera, read_image
from edge_mil.errors import PixelSizeError, PositionError, SourceError, UsageError
from edge_mil.types import UInt8Array


def painted(level: int, height: int = 20, width: int = 30) -> UInt8Array:
    pixels = np.full((height, width, 3), level, np.uint8)
    pixels[..., 0] = 200
    return pixels


def save(path: Path, pixels: UInt8Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("b.png", "sub/a.png", "c.bmp", "d.tif")):
        save(tmp_path / name, painted(number))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_positions_come_from_the_table(folder: Path) -> None:
    rows = ["file,x_um,y_um", "c.bmp,3,4.5", "b.png,-1e1,2", "sub/a.png,5,6", "d.tif,7,8"]
    (folder / "positions.csv").write_text("\n".join(rows))
    camera = open_camera(str(folder), mpp=0.5)
    found = {f.name: (f.x_um, f.y_um, int(f.pixels[0, 0, 2])) for f in camera.frames()}
    assert list(found) == ["b.png", "c.bmp", "d.tif", "sub/a.png"]
    assert found == {
        "b.png": (-10, 2, 0),
        "c.bmp": (3, 4.5, 2),
        "d.tif": (7, 8, 3),
        "sub/a.png": (5, 6, 1),
    }
    assert next(iter(camera.frames())).pixels[0, 0].tolist() == [200, 0, 0]


def test_positions_come_from_the_names(tmp_path: Path) -> None:
    for name in ("f_x123.4_y567.8.png", "f_x-3_y0.png"):
        save(tmp_path / name, painted(9))
    camera = open_camera(str(tmp_path), mpp=0.5)
    assert [(f.x_um, f.y_um) for f in camera.frames()] == [(-3, 0), (123.4, 567.8)]


def test_images_without_positions_are_refused_unless_independent(folder: Path) -> None:
    with pytest.raises(PositionError, match=r"positions\.csv.*_x123\.4_y567\.8.*--independent"):
        open_camera(str(folder), mpp=0.5)
    camera = open_camera(str(folder), mpp=0.5, independent=True, passes=2)
    frames = list(camera.frames())
    assert [f.location_id for f in frames] == ["b.png", "c.bmp", "d.tif", "sub/a.png"] * 2
    assert all(f.x_um is None for f in frames)


def test_random_shuffles_the_images(folder: Path) -> None:
    orders = set()
    for seed in range(5):
        camera = open_camera(str(folder), mpp=0.5, independent=True, path="random", seed=seed)
        orders.add(tuple(frame.location_id for frame in camera.frames()))
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {("b.png", "c.bmp", "d.tif", "sub/a.png")}


def test_images_without_a_pixel_size_are_refused(folder: Path) -> None:
    with pytest.raises(PixelSizeError, match="--mpp"):
        open_camera(str(folder), independent=True)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,x,y\nb.png,1,2", "begin with the line"),
        ("file,x_um,y_um\nb.png,1,here", "Line 2"),
        ("file,x_um,y_um\nb.png,1,nan", "Line 2"),
        ("file,x_um,y_um\nb.png,1", "Line 2"),
        ("file,x_um,y_um\nb.png,1,2\nlost.png,1,2", "lost.png"),
        ("", "nothing"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(folder: Path, table: str, says: str) -> None:
    (folder / "positions.csv").write_text(table)
    with pytest.raises(SourceError, match=says):
        open_camera(str(folder), mpp=0.5)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"torn{suffix}", rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    for kept in (0, 10, len(data) // 2):
        path.write_bytes(data[:kept])
        camera = open_camera(str(tmp_path), mpp=0.5, independent=True)
        with pytest.raises(SourceError, match=f"torn{suffix}"):
            list(camera.frames())


def test_other_kinds_of_images_become_rgb_or_are_refused(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((4, 5), 77, np.uint8))
    assert read_image(grey).tolist() == [[[77] * 3] * 5] * 4
    clear = tmp_path / "clear.png"
    rgba = np.zeros((4, 5, 4), np.uint8)
    rgba[:, :2] = (10, 20, 30, 255)
    cv2.imwrite(str(clear), rgba)
    assert read_image(clear)[0].tolist() == [[30, 20, 10]] * 2 + [[255] * 3] * 3
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), np.full((4, 5, 3), 7000, np.uint16))
    with pytest.raises(SourceError, match=r"deep\.png has uint16"):
        read_image(deep)


def test_an_empty_folder_and_options_of_slides_are_refused(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="no images"):
        open_camera(str(empty), mpp=0.5)
    with pytest.raises(UsageError, match="--fov"):
        open_camera(str(folder), mpp=0.5, fov=(10, 10))


@pytest.mark.shared
def test_blood_fields_of_five_folders_are_independent_locations() -> None:
    camera = open_camera(str(shared("data/blood_disease_fov")), mpp=0.1, independent=True)
    assert isinstance(camera, ImageFolder)
    assert len(camera.names) == 30
    frame = next(iter(camera.frames()))
    assert frame.location_id == "hereditary_elliptocytosis/hereditary_elliptocytosis_001.jpg"
    assert frame.pixels.shape == (960, 1280, 3)
