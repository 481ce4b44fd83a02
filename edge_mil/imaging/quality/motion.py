"""Motion: contrast lost along one direction, and the displacement between two frames."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.imaging.quality.focus import Contrast
from edge_mil.types import UInt8Array

MAX_SIDE_PX = 512
"""Two frames are halved until their long side is shorter, before they are correlated."""

MIN_RESPONSE = 0.1
"""Response of the phase correlation below which the displacement is unknown."""


MIN_ECHO = 1.0
"""Least strength of an echo whose logarithm is taken: chance makes 4 to 5."""


def motion_features(contrast: Contrast, echo: float) -> tuple[float, ...]:
    """Return the features of the motion gate, in decades.

    Args:
        contrast: The field's spectrum without the noise.
        echo: `echo_strength` of the field: high for a doubled exposure and for vibration.

    Motion blur removes contrast along the direction of motion, and more of it from finer detail.
    Fibres have a direction too, but the same at every scale, and across them the image stays sharp.
    The features are therefore the fall of the worst direction by itself, and the difference of
    directions between fine and coarse bands. A long motion empties the worst direction from 0.07
    cycles per pixel up. The last feature is the noise itself: the more of it, the more the
    directions differ by chance.

    Source:
        Uniform motion over n pixels multiplies the spectrum by a sinc along its direction, whose
        first zero is at 1 / n cycles per pixel (Sondhi, Proc. IEEE 60:842, 1972). The weights of
        the features are fitted by `tests/benchmarks/gates/fit_weights.py`.
    """
    sectors = contrast.sectors
    # Means over two neighbouring bands each, one number per direction.
    fine = sectors[5:7].mean(axis=0)
    middle = sectors[4:6].mean(axis=0)
    coarse = sectors[1:3].mean(axis=0)
    # The steepest fall between two bands of 0.045 to 0.25 cycles per pixel, per direction.
    falls = np.diff(sectors, axis=0)[2:6].min(axis=0)
    return (
        float(falls.min()),
        float(fine.min() - contrast.floor),
        float(np.ptp(fine)),
        float(np.ptp(fine - coarse)),
        float(np.ptp(middle)),
        float(sectors[3].min() - contrast.rings[0:2].mean()),
        float(np.ptp(coarse)),
        math.log10(max(echo, MIN_ECHO)),
        contrast.floor,
    )


def displacement_px(grey: UInt8Array, previous: UInt8Array) -> float:
    """Return the displacement of the image since the frame before, pixels; NaN where unknown.

    Args:
        grey: uint8 (h, w).
        previous: The frame before, uint8 (h, w); of another size the displacement is unknown.

    Source:
        Phase correlation (Kuglin and Hines, IEEE Int. Conf. Cybernetics and Society, 1975), as
        OpenCV computes it, with a Hann window against the edges.
    """
    if grey.shape != previous.shape or min(grey.shape) < 2:
        return math.nan
    factor = 1
    # By halves: the mean of 2 x 2 pixels is fifty times as fast as that of fractional areas.
    while max(grey.shape) >= MAX_SIDE_PX and min(grey.shape) >= 4:
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
    even = grey[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
