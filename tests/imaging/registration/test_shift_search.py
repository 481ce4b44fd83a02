"""The correlation of every shift, against scikit-image's masked normalised cross-correlation."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.registration import phase_cross_correlation
from skimage.registration._masked_phase_cross_correlation import cross_correlate_masked
from textured_slide import textured_slide

from edge_mil.imaging.registration.pairwise import register_pair, score_shift
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.shift_search import (
    MIN_OVERLAP,
    MIN_SIDE,
    normalised_cross_correlation,
)
from edge_mil.types import Float64Array, UInt8Array

SLIDE = textured_slide(400, 400)
TOLERANCE = 1e-5
"""Of a correlation: one side has spectra of float32, the other of float64."""


class Masked(NamedTuple):
    """An image within a larger canvas, and the mask of its pixels."""

    canvas: Float64Array
    mask: np.ndarray
    row: int
    column: int


def pyramid(seed: int, height: int, width: int) -> RegistrationPyramid:
    """Return an image of structure so small that its coarsest scale is the image itself."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    grey = 128 + 400 * cv2.GaussianBlur(noise, (0, 0), 2)
    return RegistrationPyramid.of(np.clip(grey, 0, 255).astype(np.uint8))


def masked(image: RegistrationPyramid, shape: tuple[int, int], seed: int) -> Masked:
    """Put the equalised image anywhere in a canvas of junk that the mask hides."""
    chance = np.random.default_rng(seed)
    height, width = image.coarse.pixels.shape
    row = int(chance.integers(0, shape[0] - height + 1))
    column = int(chance.integers(0, shape[1] - width + 1))
    canvas, mask = chance.normal(0, 100, shape), np.zeros(shape, bool)
    canvas[row : row + height, column : column + width] = image.coarse.pixels
    mask[row : row + height, column : column + width] = True
    return Masked(canvas, mask, row, column)


def by_scikit_image(a: Masked, b: Masked) -> Float64Array:
    found: Float64Array = cross_correlate_masked(
        a.canvas, b.canvas, a.mask, b.mask, mode="full", axes=(0, 1), overlap_ratio=0
    )
    return found


SIDES = st.integers(4 * MIN_SIDE, 64)


@settings(max_examples=40)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_every_shift_of_masked_images_correlates_as_in_scikit_image(
    h: int, w: int, h2: int, w2: int, seed: int
) -> None:
    fixed, moving = pyramid(seed, h, w), pyramid(seed + 1, h2, w2)
    correlation, area, rows, columns = normalised_cross_correlation(fixed, moving)
    a, b = masked(fixed, (70, 75), seed), masked(moving, (66, 80), seed + 1)
    theirs = by_scikit_image(a, b)
    # Index (0, 0) of theirs is the shift at which only the canvases' corners meet.
    row = rows[0] + a.row - b.row + b.canvas.shape[0] - 1
    column = columns[0] + a.column - b.column + b.canvas.shape[1] - 1
    theirs = theirs[row : row + len(rows), column : column + len(columns)]
    shared = area >= MIN_OVERLAP * min(h * w, h2 * w2)
    assert shared.any()
    assert np.abs(correlation - theirs)[shared].max() < TOLERANCE


def test_the_area_is_the_overlap_of_the_two_images() -> None:
    fixed, moving = pyramid(1, 30, 40), pyramid(2, 26, 33)
    _, area, rows, columns = normalised_cross_correlation(fixed, moving)
    canvas = np.zeros((100, 120), int)
    canvas[30:60, 35:75] = 1
    for row in (-20, 0, 3, 25):
        for column in (-30, -1, 0, 39):
            inside = canvas[30 + row : 56 + row, 35 + column : 68 + column].sum()
            assert area[list(rows).index(row), list(columns).index(column)] == inside


def test_a_blank_overlap_does_not_correlate() -> None:
    glass = np.full((60, 80), 235, np.uint8)
    glass[::7, ::5] += 1
    correlation, area, _, _ = normalised_cross_correlation(
        RegistrationPyramid.of(glass), RegistrationPyramid.of(glass[::-1].copy())
    )
    assert np.abs(correlation[area >= 100]).max() < 0.5


@pytest.mark.parametrize("shift", [(40, 25), (-31, 60), (0, -70), (90, 80)])
def test_the_shift_that_is_registered_is_that_of_scikit_image(shift: tuple[int, int]) -> None:
    def view(x: int, y: int) -> UInt8Array:
        return np.ascontiguousarray(SLIDE[y : y + 128, x : x + 150])

    fixed = RegistrationPyramid.of(view(120, 120))
    moving = RegistrationPyramid.of(view(120 + shift[0], 120 + shift[1]))
    found = register_pair(fixed, moving)
    assert found is not None
    assert found.reliable
    ones = np.ones(fixed.coarse.pixels.shape, bool)
    theirs, _, _ = phase_cross_correlation(
        fixed.coarse.pixels,
        moving.coarse.pixels,
        reference_mask=ones,
        moving_mask=ones,
        overlap_ratio=MIN_OVERLAP,
    )
    assert (round(found.dx), round(found.dy)) == shift == (theirs[1], theirs[0])


@pytest.mark.parametrize("shift", [(0, 0), (17, -9), (-60, 44)])
def test_the_response_of_one_shift_is_the_correlation_of_its_overlap(
    shift: tuple[int, int],
) -> None:
    fixed, moving = pyramid(5, 120, 150), pyramid(6, 110, 140)
    scored = score_shift(fixed, moving, *shift)
    assert scored is not None
    a, b = fixed.flat(1).astype(np.float64), moving.flat(1).astype(np.float64)
    theirs = by_scikit_image(
        Masked(a, np.ones(a.shape, bool), 0, 0), Masked(b, np.ones(b.shape, bool), 0, 0)
    )
    row, column = shift[1] + b.shape[0] - 1, shift[0] + b.shape[1] - 1
    assert scored.response == pytest.approx(theirs[row, column], abs=TOLERANCE)
