"""How much of a field the camera clipped: plateaus at its top, not the noise of bright glass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge_mil.types import UInt8Array

if TYPE_CHECKING:
    from cv2.typing import MatLike

TOP = 254
"""Level from which a channel counts as clipped: JPEG makes 254 of some 255."""

BLACK = 2
"""Level to which a channel counts as black."""

SAMPLE_PX = 500_000
"""Pixels looked at, about: the rows of a larger field are thinned."""

WHITE_FIELD = 0.01
"""Added to the share that is not white: a white field with a few specks is not clipped."""

_ROWS = 3
_COLUMNS = np.ones((1, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Clipped:
    """Shares of a field whose light the camera could not count, 0 to 1.

    Attributes:
        partly: One or two of the channels are clipped: a colour that is wrong.
        wholly: All three are: empty glass under a bright lamp, or tissue burnt out.
        black: All three are black.
    """

    partly: float
    wholly: float
    black: float

    @property
    def share(self) -> float:
        """The partly clipped share of what is not wholly clipped.

        Pure white alone says nothing: many scanners and cameras make empty glass 255. Where the
        light is too strong, what is left between the white is clipped in a channel or two.
        """
        return self.partly / (1.0 - self.wholly + WHITE_FIELD)


def clipped(pixels: UInt8Array) -> Clipped:
    """Measure clipping as plateaus of 3 x 3 pixels, on rows spread over the field.

    Empty glass at 250 with the noise of a sensor has pixels at 255 too, but no plateaus: over
    1 % of good fields' pixels were at 255 in half of the sets, and plateaus next to nowhere.

    Args:
        pixels: RGB uint8 (h, w, 3), as the camera gave them.
    """
    height, width = pixels.shape[:2]
    if height < _ROWS:
        pixels, height = np.repeat(pixels, _ROWS, axis=0), height * _ROWS
    apart = max(_ROWS, round(height * width * _ROWS / SAMPLE_PX))
    strips = height // apart if height >= apart else 1
    first = (np.arange(strips) * height) // strips
    first = np.minimum(first, height - _ROWS)
    lowest = pixels[first]
    highest = lowest.copy()
    for row in range(1, _ROWS):
        strip = pixels[first + row]
        cv2.min(lowest, strip, dst=lowest)
        cv2.max(highest, strip, dst=highest)
    lowest = cv2.erode(lowest, _COLUMNS, borderType=cv2.BORDER_REPLICATE)
    area = lowest.shape[0] * lowest.shape[1]
    red, green, blue = cv2.split(lowest)
    brightest = cv2.max(cv2.max(red, green), blue)
    darkest = cv2.min(cv2.min(red, green), blue)
    wholly = _at_top(darkest)
    partly = _at_top(brightest) - wholly
    black = cv2.countNonZero(cv2.inRange(highest, (0, 0, 0), (BLACK, BLACK, BLACK)))
    return Clipped(partly / area, wholly / area, black / area)


def _at_top(levels: MatLike) -> int:
    return int(cv2.countNonZero(cv2.threshold(levels, TOP - 1, 255, cv2.THRESH_BINARY)[1]))
