"""Whether a field shows a held cell clearly more sharply than the fields that it was made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from edge_mil.imaging.quality.focus import box_sharpness
from edge_mil.types import UInt8Array

Sharpness: TypeAlias = Callable[[int, int, int, int], float]
"""Noise-corrected sharpness of the box x0, y0, x1, y1 of a field, pixels, ends excluded."""

MIN_GAIN = 1.25
"""Ratio of two sharpnesses that counts as clearly sharper."""

MIN_DIFFERENCE, FULL_SIDE_PX = 6.0, 64
"""Difference that is needed as well, grey levels squared, for a part of 64 x 64 pixels and more:
six deviations of what noise of 3 grey levels leaves in `box_sharpness`. The deviation of a mean
falls with the root of its pixels, so a smaller part needs more."""

MIN_SIDE_PX = 16
"""A part with a shorter side holds too few pixels to be measured."""


@dataclass(frozen=True, slots=True)
class ViewSharpness:
    """Sharpness at which one part of a cell was shown.

    Attributes:
        x: Column of the part's left edge within the cell's box.
        y: Row of its top edge.
        width_px: Its columns.
        height_px: Its rows.
        sharpness: `box_sharpness`, grey levels squared; NaN where it was not measured.
    """

    x: int
    y: int
    width_px: int
    height_px: int
    sharpness: float

    @property
    def noise_limit(self) -> float:
        """Difference of sharpness above which it is more than noise, grey levels squared."""
        side_px = math.sqrt(self.width_px * self.height_px)
        return MIN_DIFFERENCE * max(1.0, FULL_SIDE_PX / side_px)


def sharpness_of(pixels: UInt8Array, x0: int, y0: int, x1: int, y1: int) -> float:
    """Return the sharpness of a box of a field, from the pixels of the box alone.

    Args:
        pixels: RGB uint8 (h, w, 3), or grey uint8 (h, w).
        x0: First column of the box.
        y0: First row.
        x1: Column after the last.
        y1: Row after the last.
    """
    box = pixels[y0:y1, x0:x1]
    grey = box if box.ndim == 2 else cv2.cvtColor(box, cv2.COLOR_RGB2GRAY)
    return box_sharpness(grey.astype(np.uint8, copy=False))


def part_sharpness(
    sharpness: Sharpness | None, x: int, y: int, width_px: int, height_px: int
) -> float:
    """Return the sharpness of a part of a cell, given within the field; NaN where too small."""
    if sharpness is None or min(width_px, height_px) < MIN_SIDE_PX:
        return math.nan
    return sharpness(x, y, x + width_px, y + height_px)


def lowest_sharpness(parts: Sequence[ViewSharpness]) -> float:
    """Return the sharpness of the least sharp part; NaN where none was measured."""
    return min((p.sharpness for p in parts if math.isfinite(p.sharpness)), default=math.nan)


def clearly_sharper(before: Sequence[ViewSharpness], now: Sequence[ViewSharpness]) -> bool:
    """Say whether a cell is shown clearly more sharply, comparing part with part.

    The parts are those that the cell was assembled from, so that smooth stroma in one part is
    never compared with nuclei in another: of equal pixels every part is equally sharp. One part
    must gain by the factor, and so must all parts together (the product of their ratios). The
    product grows with every replacement, so no sequence of views of a cell returns to an earlier
    state: two frames never replace each other for ever.

    Args:
        before: Sharpness of the held cell's parts.
        now: Sharpness of the same parts in this field.
    """
    clear, log_ratio = False, 0.0
    for old, new in zip(before, now, strict=True):
        if math.isfinite(old.sharpness) and math.isfinite(new.sharpness):
            # Below the limit all is noise, and a ratio of noise says nothing.
            limit = old.noise_limit
            gain = math.log(max(new.sharpness, limit) / max(old.sharpness, limit))
            clear |= gain > math.log(MIN_GAIN) and new.sharpness - old.sharpness > limit
            log_ratio += gain
    return clear and log_ratio > math.log(MIN_GAIN)
