"""A held cell is replaced by a clearly sharper view, and two views never alternate for ever."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from painted_field import MPP, painted

from edge_mil.imaging import CellMap, GridGeometry, ViewSharpness, clearly_sharper
from edge_mil.imaging.cells.replacement import MIN_DIFFERENCE, MIN_GAIN, MIN_SIDE_PX
from edge_mil.imaging.quality.focus import box_sharpness
from edge_mil.types import UInt8Array, Verdict

SLIDE = painted(256, 256)
GEOMETRY = GridGeometry(MPP, 64, 64, 0.5)


def empty_map() -> CellMap:
    return CellMap(GEOMETRY, background=(240.0, 240.0, 240.0), min_difference=25.0, min_share=0.05)


def shown(to: CellMap, pixels: UInt8Array, x: int, y: int, sequence: int) -> tuple[Verdict, int]:
    """Commit a field whose top left corner is pixel (x, y)."""
    height, width = pixels.shape[:2]
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    update = to.plan(
        pixels,
        (x + width / 2) * MPP,
        (y + height / 2) * MPP,
        sequence,
        lambda x0, y0, x1, y1: box_sharpness(grey[y0:y1, x0:x1]),
    )
    to.commit(update)
    return update.verdict, len(update.improved)


def blurred(pixels: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 10), np.uint8)


def test_a_sharper_view_replaces_a_cell_once() -> None:
    cells = empty_map()
    assert shown(cells, blurred(SLIDE), 0, 0, 1) == (Verdict.ACCEPTED, 0)
    assert shown(cells, SLIDE, 0, 0, 2) == (Verdict.ACCEPTED, 16)
    assert shown(cells, SLIDE, 0, 0, 3) == (Verdict.DUPLICATE, 0)
    assert shown(cells, blurred(SLIDE), 0, 0, 4) == (Verdict.DUPLICATE, 0)
    assert cells.held == 16
    # Nothing of the first field is left, and all of the second is.
    assert cells.remove(1) == ((), ())
    assert len(cells.remove(2)[0]) == 16


def test_equal_pixels_are_never_replaced_however_the_cell_was_assembled() -> None:
    cells = empty_map()
    for sequence, (x, y) in enumerate([(0, 0), (90, 0), (0, 75), (90, 75), (40, 31)], 1):
        shown(cells, SLIDE[y : y + 150, x : x + 150], x, y, sequence)
    assert shown(cells, SLIDE, 0, 0, 9)[1] == 0


def test_a_cell_with_one_blurred_part_is_replaced() -> None:
    cells = empty_map()
    shown(cells, SLIDE[:64, :40], 0, 0, 1)
    shown(cells, blurred(SLIDE)[:64, 40:64], 40, 0, 2)
    assert cells.held == 1
    assert shown(cells, SLIDE[:64, :64], 0, 0, 3) == (Verdict.ACCEPTED, 1)


def test_parts_too_small_to_judge_are_left_out() -> None:
    cells = empty_map()
    shown(cells, SLIDE[:64, : 64 - MIN_SIDE_PX + 1], 0, 0, 1)
    update = cells.plan(
        SLIDE[:64, 40:64], 26.0, 16.0, 2, lambda x0, y0, x1, y1: pytest.fail("was measured")
    )
    assert math.isnan(update.sharpness[0, 0][1].sharpness)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    sd=st.floats(0, 3),
    blur=st.floats(0.3, 6),
    order=st.permutations(range(6)),
)
def test_equally_sharp_noisy_frames_leave_the_cells_as_the_first_showed_them(
    seed: int, sd: float, blur: float, order: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    still = cv2.GaussianBlur(SLIDE, (0, 0), blur).astype(np.float64)
    frames = [
        np.clip(np.rint(still + rng.normal(0, sd, still.shape)), 0, 255).astype(np.uint8)
        for _ in order
    ]
    cells = empty_map()
    shown(cells, frames[order[0]], 0, 0, 1)
    for sequence, number in enumerate(order[1:], 2):
        assert shown(cells, frames[number], 0, 0, sequence) == (Verdict.DUPLICATE, 0)


@settings(max_examples=300)
@given(views=st.lists(st.lists(st.floats(0, 1e4), min_size=3, max_size=3), min_size=2, max_size=6))
def test_no_sequence_of_views_comes_back_to_where_it_was(views: list[list[float]]) -> None:
    """Shown the same views for ever, a cell settles."""
    held = [ViewSharpness(0, 0, 64, 64, s) for s in views[0]]
    swaps = 0
    for _ in range(len(views) + 1):
        before = swaps
        for view in views:
            now = [ViewSharpness(0, 0, 64, 64, s) for s in view]
            if clearly_sharper(held, now):
                held, swaps = now, swaps + 1
    assert swaps == before
    # Each one gains the factor, from the floor upwards.
    assert swaps <= 3 * math.log(1e4 / MIN_DIFFERENCE) / math.log(MIN_GAIN)
