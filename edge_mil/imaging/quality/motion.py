"""Whether the slide moved: contrast lost along one direction, and the way between two frames."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.imaging.quality.focus import Contrast
from edge_mil.types import UInt8Array

DISPLACEMENT_PX = 512
"""Two frames are halved until their long side is shorter, to find the way between them."""

MIN_RESPONSE = 0.1
"""Response of the correlation below which the way between two frames is not known."""


def motion_numbers(of: Contrast) -> tuple[float, ...]:
    """Return what tells a moved field from a still one, in decades.

    Motion takes contrast along its own direction, the finer the more. Fibres lie in one direction
    too, but they do so at every fineness, and across them the picture stays as sharp as along
    them: the numbers are therefore of the worst direction's own fall, and of the difference of
    directions between fine and coarse. A long way empties the worst direction from 0.07 up.
    """
    sectors = of.sectors
    fine = sectors[5:7].mean(axis=0)
    middle = sectors[4:6].mean(axis=0)
    coarse = sectors[1:3].mean(axis=0)
    falls = np.diff(sectors, axis=0)[2:6].min(axis=0)
    return (
        float(falls.min()),
        float(fine.min() - of.floor),
        float(np.ptp(fine)),
        float(np.ptp(fine - coarse)),
        float(np.ptp(middle)),
        float(sectors[3].min() - of.rings[0:2].mean()),
        float(np.ptp(coarse)),
    )


def displacement_px(grey: UInt8Array, previous: UInt8Array) -> float:
    """Return how far the picture moved since the frame before, pixels; NaN where in doubt.

    Args:
        grey: uint8 (h, w).
        previous: The frame before, of the same size; another size is in doubt.
    """
    if grey.shape != previous.shape or min(grey.shape) < 2:
        return math.nan
    factor = 1
    # By halves: the mean of 2 x 2 pixels is fifty times as fast as that of fractional areas.
    while max(grey.shape) >= DISPLACEMENT_PX and min(grey.shape) >= 4:
        grey, previous, factor = _halved(grey), _halved(previous), 2 * factor
    window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(
        previous.astype(np.float32), grey.astype(np.float32), window
    )
    if response < MIN_RESPONSE:
        return math.nan
    return float(math.hypot(x, y) * factor)


def _halved(grey: UInt8Array) -> UInt8Array:
    height, width = grey.shape[0] // 2, grey.shape[1] // 2
    whole = grey[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
