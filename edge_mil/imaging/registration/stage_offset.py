"""Where the zero of a stage that errs lies, out of many of its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

FIELDS_REMEMBERED = 24
"""Over so many fields a stage's errors are averaged to learn where its own zero lies."""

MOST_PULL_PX = 1
"""By so much a field is drawn back towards the stage's zero at most: no seam is seen of it."""


@dataclass(frozen=True, slots=True)
class StageOffset:
    """By how much registered fields lie off the stage's own places, on the average.

    The first field is believed as it is, and what is registered to it inherits its error. The
    errors of many positions cancel, so their mean says how wrong the first one was, and fields
    are drawn back pixel by pixel. On a stage without errors all of it stays 0.

    Attributes:
        x: Camera pixels to the right.
        y: Camera pixels down.
        fields: How many it is known from.
    """

    x: float = 0.0
    y: float = 0.0
    fields: int = 1

    def after(self, shift: tuple[float, float]) -> tuple[StageOffset, tuple[int, int]]:
        """Return what is known after one more field, and where that field is put.

        Args:
            shift: Of its place by registration against the stage's, camera pixels.

        Returns:
            The new offset, and whole pixels to add to the stage's place.
        """
        fields = min(self.fields + 1, FIELDS_REMEMBERED)
        x, y = (
            known + (float(found) - known) / fields
            for known, found in zip((self.x, self.y), shift, strict=True)
        )
        back_x, back_y = _pull(x), _pull(y)
        place = round(shift[0]) - back_x, round(shift[1]) - back_y
        return StageOffset(x - back_x, y - back_y, fields), place


def _pull(offset_px: float) -> int:
    return int(math.copysign(MOST_PULL_PX, offset_px)) if abs(offset_px) > MOST_PULL_PX else 0
