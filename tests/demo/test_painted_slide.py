"""The painter: seeded, readable, and truthful about where the foci are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edge_mil.demo.painted_slide import PaintedSlide, paint_slide
from edge_mil.demo.slide_layout import MAP_STEP_PX
from edge_mil.demo.stain_canvas import GLASS

SMALL = {"height_px": 768, "width_px": 1024}


@pytest.fixture(scope="module")
def positive() -> PaintedSlide:
    return paint_slide(3, positive=True, **SMALL)


def _digest(slide: PaintedSlide) -> str:
    return hashlib.sha256(slide.pixels.tobytes() + slide.foci.tobytes()).hexdigest()


def test_the_same_seed_paints_the_same_slide(positive: PaintedSlide) -> None:
    assert _digest(paint_slide(3, positive=True, **SMALL)) == _digest(positive)


def test_another_seed_paints_another_slide(positive: PaintedSlide) -> None:
    assert _digest(paint_slide(4, positive=True, **SMALL)) != _digest(positive)


def test_a_negative_slide_is_not_the_positive_one_without_its_foci(positive: PaintedSlide) -> None:
    negative = paint_slide(3, positive=False, **SMALL)
    assert (negative.tissue != positive.tissue).any()


@pytest.mark.parametrize("seed", range(4))
def test_only_positive_slides_hold_foci_and_both_hold_lymphocytes(seed: int) -> None:
    for label in (True, False):
        slide = paint_slide(seed, positive=label, **SMALL)
        assert slide.foci.any() == label
        assert slide.lymphocytes.any()
        assert not (slide.foci & slide.lymphocytes).any()
        assert slide.tissue[slide.foci].all()


def test_glass_is_glass_and_tissue_is_pink(positive: PaintedSlide) -> None:
    coarse = positive.pixels[::MAP_STEP_PX, ::MAP_STEP_PX].astype(float)
    glass = coarse[~positive.tissue & ~_near(positive.tissue)]
    assert np.abs(glass.mean(axis=0) - GLASS).max() < 4
    red, green, _ = coarse[positive.tissue].mean(axis=0)
    assert red - green > 25


def test_foci_are_darker_than_the_stroma_around_them(positive: PaintedSlide) -> None:
    coarse = positive.pixels[::MAP_STEP_PX, ::MAP_STEP_PX, 0].astype(float)
    stroma = positive.tissue & ~positive.foci & ~positive.glands & ~positive.lymphocytes
    assert coarse[positive.foci].mean() < coarse[stroma].mean() - 15


def test_a_slide_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 512 px"):
        paint_slide(0, positive=True, height_px=300, width_px=900)


def _near(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 2)
    rows, columns = mask.shape
    return np.logical_or.reduce(
        [padded[y : y + rows, x : x + columns] for y in range(5) for x in range(5)]
    )
