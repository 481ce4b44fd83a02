"""Measure the pixel size from one image of a ruler: a slide with lines at a known distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import CalibrationError
from edge_mil.types import Float64Array, UInt8Array

WORK_PX = 1024
"""Longest side of the spectrum in which the lines are first looked for."""
MIN_PERIODS = 6
"""Fewer lines than this in the field do not give a period that can be relied on."""
MIN_PERIOD_PX = 4.0
"""Shorter periods are near the spectrum's end, where a lens blurs them away."""
MIN_PROMINENCE = 30.0
"""Peak over the median of its ring in the spectrum. Rulers measure a hundred to thousands, tissue
2 to 9, with one field of 15, since its structure has no one period."""
RING_WIDTH = 0.15
"""Half width of that ring, share of the peak's frequency."""
OCTAVE_SHARE = 0.25
"""A line pattern's true period, not a part of it, holds at least this share of the best peak."""
FLATTENING = 4
"""The light is taken out by a mean over a window of the image's longest side over this."""
ZOOMS, STEPS = 6, 9
"""Rounds of the refinement, each by a factor of 4, and the grid of each: to 1/4096 of a bin."""


@dataclass(frozen=True, slots=True)
class Ruler:
    """The lines of one image.

    Attributes:
        period_px: Distance of the lines, pixels, across them.
        angle_deg: Direction across the lines, 0 along x, y down, -90 to 90.
        prominence: Their peak in the spectrum over the median around it.
    """

    period_px: float
    angle_deg: float
    prominence: float


def measure_ruler(grey: UInt8Array) -> Ruler:
    """Measure the distance of parallel lines.

    The strongest frequency of the windowed image, or the octave below it where that is strong
    too, is followed to a thousandth of a cycle by ever finer Fourier sums: a field of 20 lines
    then gives the period to about 1e-4 of itself.

    Args:
        grey: uint8 (h, w).

    Raises:
        CalibrationError: The image shows no regular lines, or fewer than six.

    Source:
        Frequency estimation at the peak of a windowed periodogram (Rife & Boorstyn, IEEE Trans Inf
        Theory 20:591, 1974), in two dimensions.
    """
    # 1. Shrink, by whole pixels.
    factor = max(1, math.ceil(max(grey.shape) / WORK_PX))
    height, width = grey.shape[0] // factor * factor, grey.shape[1] // factor * factor
    small = cv2.resize(
        grey[:height, :width].astype(np.float32),
        (width // factor, height // factor),
        interpolation=cv2.INTER_AREA,
    )
    # 2. Take out uneven light: a mean over a box, whose cost does not grow with its size.
    window = max(small.shape) // FLATTENING | 1
    flattened = small - cv2.blur(small, (window, window), borderType=cv2.BORDER_REFLECT)
    # 3. The spectrum under a Hann window, so that the edges of the image are no frequency.
    rows, columns = flattened.shape
    windowed = (flattened * np.outer(np.hanning(rows), np.hanning(columns))).astype(np.float64)
    amplitudes = np.abs(np.fft.rfft2(windowed))
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None]
    radius = np.hypot(fy, fx)
    # The window blurs a line to four bins: nothing below six periods can be told apart.
    lowest = MIN_PERIODS / max(rows, columns)
    usable = (radius >= lowest) & (radius <= 1 / MIN_PERIOD_PX)
    if not usable.any() or not float(amplitudes.max()) > 0:
        raise CalibrationError("The image shows nothing; put the ruler's lines into the field.")
    # 4. The strongest frequency, and how much it stands out of the others as high.
    v, u = np.unravel_index(int(np.argmax(np.where(usable, amplitudes, 0))), amplitudes.shape)
    peak = float(amplitudes[v, u])
    frequency = float(fy[v, 0]), float(fx[0, u])
    length = math.hypot(*frequency)
    ring = amplitudes[usable & (np.abs(radius - length) < RING_WIDTH * length)]
    prominence = peak / max(float(np.median(ring)), 1e-9)
    if prominence < MIN_PROMINENCE:
        raise CalibrationError(
            f"The image shows no regular lines (their peak stands out {prominence:.0f} times, and "
            f"{MIN_PROMINENCE:.0f} are needed); focus on the ruler and fill the field with its "
            "lines.",
            prominence=prominence,
        )
    # 5. Refine it; a ruler with longer lines among the others peaks at a half or a third too.
    frequency = _refine(windowed, frequency)
    for part in (3, 2):
        lower = frequency[0] / part, frequency[1] / part
        if math.hypot(*lower) >= lowest and _amplitude(windowed, *lower) > OCTAVE_SHARE * peak:
            frequency = _refine(windowed, lower)
            break
    period = factor / math.hypot(*frequency)
    angle = math.degrees(math.atan2(frequency[0], frequency[1]))
    return Ruler(period, (angle + 90) % 180 - 90, prominence)


def _refine(windowed: Float64Array, frequency: tuple[float, float]) -> tuple[float, float]:
    """Return the frequency (y, x), cycles per pixel, near one at which the image's sum is greatest.

    The sum is computed on a grid around the best frequency so far, first one bin to each side,
    then ever finer.
    """
    rows, columns = windowed.shape
    reach = np.array([1 / rows, 1 / columns])
    centre = np.array(frequency)
    for _ in range(ZOOMS):
        offsets = np.linspace(-1, 1, STEPS)
        fy, fx = centre[0] + offsets * reach[0], centre[1] + offsets * reach[1]
        along_y = np.exp(-2j * np.pi * np.outer(fy, np.arange(rows)))
        along_x = np.exp(-2j * np.pi * np.outer(np.arange(columns), fx))
        sums = np.abs(along_y @ windowed @ along_x)
        y, x = np.unravel_index(int(np.argmax(sums)), sums.shape)
        centre = np.array([fy[y], fx[x]])
        reach = reach * 2 / (STEPS - 1)
    return float(centre[0]), float(centre[1])


def _amplitude(windowed: Float64Array, fy: float, fx: float) -> float:
    """Return the amplitude of the strongest frequency near one."""
    rows, columns = windowed.shape
    near = _refine(windowed, (fy, fx))
    along_y = np.exp(-2j * np.pi * near[0] * np.arange(rows))
    along_x = np.exp(-2j * np.pi * near[1] * np.arange(columns))
    return float(abs(along_y @ windowed @ along_x))
