"""Whether a cell that is held is now seen clearly sharper: like is compared with like."""

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

CLEARLY = 1.25
"""Factor of sharpness that counts as clearly sharper."""

LEAST, LEAST_SIDE_PX = 6.0, 64
"""Difference that it must come to as well, grey levels squared, for a part of 64 x 64 pixels and
more: six deviations of what noise of 3 grey levels leaves in `box_sharpness`. It falls with the
root of the pixels."""

MIN_SIDE_PX = 16
"""A smaller part holds too few pixels to be judged."""


@dataclass(frozen=True, slots=True)
class ViewSharpness:
    """How sharply one part of a cell was seen.

    Attributes:
        x: Column of the part's left edge within the cell's box.
        y: Row of its top edge.
        width_px: Its columns.
        height_px: Its rows.
        sharpness: `box_sharpness`; NaN where it was not judged.
    """

    x: int
    y: int
    width_px: int
    height_px: int
    sharpness: float

    @property
    def least(self) -> float:
        """Difference of sharpness that is more than noise."""
        side_px = math.sqrt(self.width_px * self.height_px)
        return LEAST * max(1.0, LEAST_SIDE_PX / side_px)


def sharpness_of(pixels: UInt8Array, x0: int, y0: int, x1: int, y1: int) -> float:
    """Return the sharpness of a box of a field; of its pixels alone.

    The field is RGB uint8 (h, w, 3), or (h, w) in grey.
    """
    box = pixels[y0:y1, x0:x1]
    grey = box if box.ndim == 2 else cv2.cvtColor(box, cv2.COLOR_RGB2GRAY)
    return box_sharpness(grey.astype(np.uint8, copy=False))


def measure(sharpness: Sharpness | None, x: int, y: int, width_px: int, height_px: int) -> float:
    """Return the sharpness of a box of the field; NaN where it cannot be judged."""
    if sharpness is None or min(width_px, height_px) < MIN_SIDE_PX:
        return math.nan
    return sharpness(x, y, x + width_px, y + height_px)


def worst_of(parts: Sequence[ViewSharpness]) -> float:
    """Return the sharpness of the part that was seen worst; NaN where none was judged."""
    return min((p.sharpness for p in parts if math.isfinite(p.sharpness)), default=math.nan)


def clearly_sharper(before: Sequence[ViewSharpness], now: Sequence[ViewSharpness]) -> bool:
    """Say whether a cell is seen clearly sharper now, part by part.

    The parts are those that the cell was assembled from, so that smooth stroma in one part is
    never compared with nuclei in another: of equal pixels every part is equally sharp. The part
    that was seen worst must gain by the factor, and so must all parts together (the product of
    their ratios). The second grows with every replacement, so no sequence of views of a cell ever
    comes back to where it was: two frames never swap for ever.

    Args:
        before: How the held cell's parts were seen.
        now: The same parts in this field.
    """
    clear, gains = False, 0.0
    for old, new in zip(before, now, strict=True):
        if math.isfinite(old.sharpness) and math.isfinite(new.sharpness):
            # Below `least` all is noise, and no ratio of noise counts.
            gain = math.log(max(new.sharpness, old.least) / max(old.sharpness, old.least))
            clear |= gain > math.log(CLEARLY) and new.sharpness - old.sharpness > old.least
            gains += gain
    return clear and gains > math.log(CLEARLY)
