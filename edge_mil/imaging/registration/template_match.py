"""Refine a shift that is known to a few pixels, by matching one part of an image on another."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from edge_mil.imaging.registration.shift_search import MIN_SIDE
from edge_mil.types import Float32Array, UInt8Array

TEMPLATE_PX = 256
"""Longest side of the part that is matched."""

REACH_PX = 2
"""Pixels by which the shift may be wrong before the match."""

THINNING = 8
"""Rows and columns between the pixels that are enough to find where the structure is."""

LIGHT_PX = 33
"""Side of the mean that is subtracted at the finest scale: wider variation is uneven light."""

Grey: TypeAlias = "Float32Array | UInt8Array"


def refined_shift(fixed: Grey, moving: Grey, dx: float, dy: float) -> tuple[float, float] | None:
    """Return the best shift (x, y) within REACH_PX of (dx, dy), to a part of a pixel.

    Args:
        fixed: Grey uint8, or flattened float32, (h, w).
        moving: Of the same kind and scale, any size.
        dx: Expected column of the moving image's left edge in the fixed one, pixels.
        dy: Expected row of its top edge.

    Returns:
        None where the two overlap too little.

    Source:
        The maximum of the normalised cross-correlation, and the vertex of the parabola through it
        and its neighbours, across and down (Debella-Gilo and Kääb, Remote Sens. Environ. 115:130,
        2011).
    """
    left, top = round(dx), round(dy)
    scores = match_scores(fixed, moving, left, top, REACH_PX, TEMPLATE_PX)
    if scores is None:
        return None
    _, _, _, (column, row) = cv2.minMaxLoc(scores)
    fx = _vertex(scores[row], column)
    fy = _vertex(scores[:, column], row)
    return left + fx - REACH_PX, top + fy - REACH_PX


def match_scores(
    fixed: Grey, moving: Grey, left: int, top: int, reach: int, template_px: int
) -> Float32Array | None:
    """Return the correlation of a part of `moving` with `fixed` around one shift.

    Args:
        fixed: Grey uint8, or flattened float32, (h, w).
        moving: Of the same kind and scale, any size.
        left: Column of the moving image's left edge in the fixed one.
        top: Row of its top edge.
        reach: Pixels around that shift that are tried.
        template_px: Longest side of the part.

    Returns:
        Correlation coefficients, float32 (2 reach + 1, 2 reach + 1); None where the two overlap
        too little.
    """
    (h, w), (h2, w2) = fixed.shape, moving.shape
    # The part of the moving image that stays on the fixed one at every shift that is tried.
    y0, y1 = max(top, reach), min(top + h2, h - reach)
    x0, x1 = max(left, reach), min(left + w2, w - reach)
    if min(y1 - y0, x1 - x0) < max(2 * reach, MIN_SIDE):
        return None
    y0, y1, x0, x1 = _most_structured(fixed, (y0, y1, x0, x1), template_px)
    template = moving[y0 - top : y1 - top, x0 - left : x1 - left]
    search = fixed[y0 - reach : y1 + reach, x0 - reach : x1 + reach]
    if fixed.dtype == np.uint8:
        template, search = _flattened(template), _flattened(search)
    scores = cv2.matchTemplate(search, template, cv2.TM_CCOEFF_NORMED)
    return scores.astype(np.float32, copy=False)


def _flattened(grey: Grey) -> Float32Array:
    """Return grey levels without their local mean."""
    return cv2.subtract(grey, cv2.blur(grey, (LIGHT_PX, LIGHT_PX)), dtype=cv2.CV_32F).astype(
        np.float32, copy=False
    )


def _most_structured(
    grey: Grey, box: tuple[int, int, int, int], side_px: int
) -> tuple[int, int, int, int]:
    """Return the part of a box (y0, y1, x0, x1), at most `side_px` a side, with most structure."""
    y0, y1, x0, x1 = box
    if y1 - y0 <= side_px and x1 - x0 <= side_px:
        return box
    # Sum of absolute deviations from the mean, in every window of thinned pixels.
    tall, wide = min(side_px, y1 - y0), min(side_px, x1 - x0)
    thinned = grey[y0:y1:THINNING, x0:x1:THINNING].astype(np.float32)
    sums = cv2.integral(np.abs(thinned - thinned.mean()))
    rows, columns = max(1, tall // THINNING), max(1, wide // THINNING)
    bands = sums[rows:] - sums[:-rows]
    _, _, _, (column, row) = cv2.minMaxLoc(bands[:, columns:] - bands[:, :-columns])
    top, left = min(y0 + THINNING * row, y1 - tall), min(x0 + THINNING * column, x1 - wide)
    return top, top + tall, left, left + wide


def _vertex(scores: Float32Array, at: int) -> float:
    """Return the vertex of the parabola through a maximum and its neighbours."""
    if not 0 < at < len(scores) - 1:
        return float(at)
    before, here, after = (float(scores[at + k]) for k in (-1, 0, 1))
    curvature = before - 2 * here + after
    return at + 0.5 * (before - after) / curvature if curvature < 0 else float(at)
