"""Estimate the offset of an inexact stage from the errors of many fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_FIELDS = 24
"""Fields over which the errors of a stage are averaged."""

MAX_STEP_PX = 1
"""Camera pixels by which a field is moved back towards the stage's zero: no seam is visible."""


@dataclass(frozen=True, slots=True)
class StageOffset:
    """Mean offset of registered fields from the stage's own positions.

    The first field is taken at its stage position, and fields that are registered to it inherit
    its error. The errors of many positions cancel, so their mean is the error of the first, and
    fields are moved back pixel by pixel. On a stage without errors the offset stays 0.

    Attributes:
        x: Camera pixels to the right.
        y: Camera pixels down.
        fields: Number of fields in the mean, MAX_FIELDS at most.
    """

    x: float = 0.0
    y: float = 0.0
    fields: int = 1

    def after(self, shift: tuple[float, float]) -> tuple[StageOffset, tuple[int, int]]:
        """Return the offset after one more field, and the shift of that field.

        Args:
            shift: Registered position minus stage position (x, y), camera pixels.

        Returns:
            The new offset, and whole pixels (x, y) to add to the stage's position.
        """
        fields = min(self.fields + 1, MAX_FIELDS)
        # A running mean with a window: old fields lose weight once there are MAX_FIELDS.
        x, y = (
            mean + (float(error) - mean) / fields
            for mean, error in zip((self.x, self.y), shift, strict=True)
        )
        step_x, step_y = _step(x), _step(y)
        shift_px = round(shift[0]) - step_x, round(shift[1]) - step_y
        return StageOffset(x - step_x, y - step_y, fields), shift_px


def _step(offset_px: float) -> int:
    return int(math.copysign(MAX_STEP_PX, offset_px)) if abs(offset_px) > MAX_STEP_PX else 0
