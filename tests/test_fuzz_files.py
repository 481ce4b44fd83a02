"""Files that are cut short, changed or replaced: one sentence, and never an unforeseen error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile_messages import random_files
from small_bundle import write_small_bundle
from tiled_tiff import write_tiled_tiff

from edge_mil.bundle import open_bundle, pack_bundle
from edge_mil.calibration import Calibration, CalibrationFolder
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.errors import EdgeMilError
from edge_mil.pipeline import load_model
from edge_mil.pipeline.saved_features.reader import read_features

CASES = 60
LONG_CASES = 8000


def bundle_file(folder: Path) -> Path:
    packed = folder / "small.milb"
    pack_bundle(open_bundle(write_small_bundle(folder / "small").path), packed)
    return packed


def numpy_file(folder: Path) -> Path:
    path = folder / "features.npz"
    np.savez(path, features=np.ones((9, 4), np.float32), positions=np.ones((9, 2)))
    return path


def hdf_file(folder: Path) -> Path:
    path = folder / "features.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = np.ones((9, 4), np.float32), np.ones((9, 2))
    return path


def slide_file(folder: Path) -> Path:
    path = folder / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (600, 700, 3), np.uint8)
    write_tiled_tiff(path, pixels, 0.5)
    return path


def calibration_file(folder: Path) -> Path:
    CalibrationFolder(folder).save(
        Calibration("desk", measured={"pixel-size": 1.0}, mpp=0.5, background=(240.0, 240.0, 240.0))
    )
    return next((folder / "calibrations").iterdir())


def read_slide(path: Path) -> None:
    slide = SlideFile(path)
    try:
        slide.read_whole(64)
        slide.read(0, 0, 300, 300)
    finally:
        slide.close()


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "bundle": (bundle_file, lambda path: load_model(open_bundle(path), threads=1).close()),
    "features in NumPy's form": (numpy_file, read_features),
    "features in HDF5": (hdf_file, read_features),
    "slide": (slide_file, read_slide),
    "calibration": (
        calibration_file,
        lambda path: CalibrationFolder(path.parents[1]).load("desk"),
    ),
}


def check(kind: str, folder: Path, cases: int, seed: int) -> None:
    write, read = READERS[kind]
    path = write(folder)
    made = random_files(random.Random(seed), path.read_bytes())
    sentences = set()
    for _ in range(cases):
        path.write_bytes(next(made))
        try:
            read(path)
        except EdgeMilError as error:
            sentences.add(str(error))
    assert sentences
    assert all(sentence.isprintable() and len(sentence) < 1000 for sentence in sentences)


@pytest.mark.parametrize("kind", READERS)
def test_no_file_is_unforeseen(kind: str, tmp_path: Path) -> None:
    check(kind, tmp_path, CASES, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", READERS)
def test_no_file_of_40_000_is_unforeseen(kind: str, tmp_path: Path) -> None:
    check(kind, tmp_path, LONG_CASES, seed=2)
