"""Fields of a turned camera, with the axes of the stage."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edge_mil.imaging.correction.stage_axes import Affine, StageAligner
from edge_mil.types import UInt8Array

MPP = 0.5


def turn(degrees: float, scale: float = MPP) -> Affine:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return scale * cos, -scale * sin, scale * sin, scale * cos


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a smooth picture of the stage at points given in lattice pixels, RGB float."""
    waves = [np.sin(x / 7 + p) * np.cos(y / 9 - p) + np.sin((x + 2 * y) / 23) for p in (0, 1, 2)]
    return 128 + 50 * np.stack(waves, axis=-1)


def seen(affine: Affine, width: int, height: int) -> UInt8Array:
    """Return what a camera with its centre at (0, 0) sees of the scene."""
    u, v = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    a, b, c, d = np.array(affine) / MPP
    return np.rint(scene(a * u + b * v, c * u + d * v)).astype(np.uint8)


def wanted(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    return scene(x, y)


@pytest.mark.parametrize("affine", [None, (MPP, 0.0, 0.0, MPP), (MPP, 1e-6, -1e-6, MPP)])
def test_a_camera_with_the_axes_of_the_stage_costs_nothing(affine: Affine | None) -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    aligned = StageAligner(affine, MPP, 40, 30).align(pixels)
    assert aligned.pixels is pixels
    assert aligned.mask is None


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1)])
def test_flips_and_quarter_turns_change_no_value(degrees: int, flip: tuple[int, int]) -> None:
    a, b, c, d = turn(degrees)
    affine = (a * flip[0], b * flip[1], c * flip[0], d * flip[1])
    pixels = seen(affine, 41, 30)
    aligner = StageAligner(affine, MPP, 41, 30)
    aligned = aligner.align(pixels)
    assert aligned.mask is None
    height, width = aligned.pixels.shape[:2]
    assert (width, height) == aligner.size == ((30, 41) if degrees % 180 else (41, 30))
    assert np.array_equal(aligned.pixels, np.rint(wanted(width, height)))


@pytest.mark.parametrize("degrees", [0.5, 3.0, -12.0, 45.0, 93.0, 179.0])
@pytest.mark.parametrize("scale", [0.5, 0.46])
def test_every_pixel_shows_its_own_point_of_the_stage(degrees: float, scale: float) -> None:
    affine = turn(degrees, scale)
    aligned = StageAligner(affine, MPP, 120, 91).align(seen(affine, 120, 91))
    assert aligned.mask is not None
    height, width = aligned.pixels.shape[:2]
    assert (width % 2, height % 2) == (0, 1)
    error = np.abs(aligned.pixels - wanted(width, height))[aligned.mask]
    assert error.mean() < 0.5
    assert error.max() < 5


@pytest.mark.parametrize("degrees", [3.0, 30.0])
def test_the_mask_holds_what_the_camera_saw_and_no_more(degrees: float) -> None:
    affine = turn(degrees)
    mask = StageAligner(affine, MPP, 200, 151).align(seen(affine, 200, 151)).mask
    assert mask is not None
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    a, b, c, d = np.array(affine) / MPP
    u, v = a * x + c * y, b * x + d * y
    assert not mask[(abs(u) > 99.51) | (abs(v) > 75.01)].any()
    assert mask[(abs(u) < 99.49) & (abs(v) < 74.99)].all()
    assert mask.any(axis=0).all()
    assert mask.any(axis=1).all()


def test_a_mirrored_and_turned_camera_is_undone() -> None:
    a, b, c, d = turn(20.0)
    affine = (-a, b, -c, d)
    aligned = StageAligner(affine, MPP, 120, 90).align(seen(affine, 120, 90))
    height, width = aligned.pixels.shape[:2]
    assert np.abs(aligned.pixels - wanted(width, height))[aligned.mask].mean() < 0.5


@pytest.mark.parametrize("degrees", [0.0, 90.0, 7.0])
def test_a_box_is_found_again_in_the_camera(degrees: float) -> None:
    affine = turn(degrees)
    aligner = StageAligner(affine, MPP, 120, 90)
    marked = np.zeros((90, 120, 3), np.uint8)
    cv2.rectangle(marked, (70, 30), (84, 47), (255, 255, 255), -1)
    rows, columns = np.nonzero(aligner.align(marked).pixels[:, :, 0] > 127)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    x0, y0, x1, y1 = aligner.camera_box(*(int(side) for side in box))
    assert x0 <= 70 < 85 <= x1
    assert y0 <= 30 < 48 <= y1
    slack = 1 if degrees % 90 == 0 else 6
    assert x1 - x0 <= 15 + slack
    assert y1 - y0 <= 18 + slack
