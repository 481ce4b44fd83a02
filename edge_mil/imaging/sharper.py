"""Whether a cell that is held is now seen clearly sharper: like is compared with like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Sharpness: TypeAlias = Callable[[int, int, int, int], float]
"""Noise-corrected sharpness of the box x0, y0, x1, y1 of a field, pixels, ends excluded."""

CLEARLY = 1.25
"""Factor of sharpness that counts as clearly sharper."""

LEAST = 4.0
"""Difference of sharpness that it must come to as well, grey levels squared."""

MIN_SIDE_PX = 16
"""A smaller part holds too few pixels to be judged."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How sharply one part of a cell was seen.

    Attributes:
        x: Column of the part's left edge within the cell's box.
        y: Row of its top edge.
        width_px: Its columns.
        height_px: Its rows.
        sharpness: NaN where it was not judged.
    """

    x: int
    y: int
    width_px: int
    height_px: int
    sharpness: float


def measure(sharpness: Sharpness | None, x: int, y: int, width_px: int, height_px: int) -> float:
    """Return the sharpness of a box of the field; NaN where it cannot be judged."""
    if sharpness is None or min(width_px, height_px) < MIN_SIDE_PX:
        return math.nan
    return sharpness(x, y, x + width_px, y + height_px)


def clearly_sharper(
    before: Sequence[Seen], now: Sequence[Seen], factor: float = CLEARLY, least: float = LEAST
) -> bool:
    """Say whether a cell is seen clearly sharper now, part by part.

    The parts are those that the cell was assembled from, so that smooth stroma in one part is
    never compared with nuclei in another: of equal pixels every part is equally sharp. The part
    that was seen worst must gain by the factor, and so must all parts together (the product of
    their ratios). The second grows with every replacement, so no sequence of views of a cell ever
    comes back to where it was: two frames never swap for ever.

    Args:
        before: How the held cell's parts were seen.
        now: The same parts in this field.
        factor: Above 1.
        least: Difference of sharpness that a part must gain too; above the noise of the measure.
    """
    pairs = [
        (old.sharpness, new.sharpness)
        for old, new in zip(before, now, strict=True)
        if math.isfinite(old.sharpness) and math.isfinite(new.sharpness)
    ]
    gains = [math.log(max(new, least) / max(old, least)) for old, new in pairs]
    clear = any(
        gain > math.log(factor) and new - old > least
        for gain, (old, new) in zip(gains, pairs, strict=True)
    )
    return clear and sum(gains) > math.log(factor)
