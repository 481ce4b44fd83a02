"""The pixel size from a ruler slide: lines at a known distance, at any angle."""

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
MIN_PROMINENCE = 30.0
"""Peak over the median of its ring in the spectrum. Rulers measure a hundred to thousands, tissue
2 to 9, with one field of 15, since its structure has no one period."""
OCTAVE_SHARE = 0.25
"""A line pattern's true period, not a part of it, holds at least this share of the best peak."""
ZOOMS = 6
STEPS = 9


@dataclass(frozen=True, slots=True)
class Ruler:
    """The lines of one image.

    Attributes:
        period_px: Distance of the lines, camera pixels, across them.
        angle_deg: Direction across the lines, 0 along x, y down, -90 to 90.
        prominence: How much the lines stand out of the spectrum.
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
    """
    factor = max(1, math.ceil(max(grey.shape) / WORK_PX))
    height, width = grey.shape[0] // factor * factor, grey.shape[1] // factor * factor
    small = cv2.resize(
        grey[:height, :width].astype(np.float32),
        (width // factor, height // factor),
        interpolation=cv2.INTER_AREA,
    )
    around = max(small.shape) // 4 | 1
    # A box, whose cost does not grow with its size.
    flattened = small - cv2.blur(small, (around, around), borderType=cv2.BORDER_REFLECT)
    rows, columns = flattened.shape
    windowed = (flattened * np.outer(np.hanning(rows), np.hanning(columns))).astype(np.float64)
    power = np.abs(np.fft.rfft2(windowed))
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None]
    radius = np.hypot(fy, fx)
    # The Hann window blurs a line to four bins: nothing below six periods can be told apart.
    lowest = MIN_PERIODS / max(rows, columns)
    usable = (radius >= lowest) & (radius <= 1 / MIN_PERIOD_PX)
    if not usable.any() or not float(power.max()) > 0:
        raise CalibrationError("The image shows nothing; put the ruler's lines into the field.")
    v, u = np.unravel_index(int(np.argmax(np.where(usable, power, 0))), power.shape)
    peak = float(power[v, u])
    at = float(fy[v, 0]), float(fx[0, u])
    ring = power[usable & (np.abs(radius - math.hypot(*at)) < 0.15 * math.hypot(*at))]
    prominence = peak / max(float(np.median(ring)), 1e-9)
    if prominence < MIN_PROMINENCE:
        raise CalibrationError(
            f"The image shows no regular lines (their peak stands out {prominence:.0f} times, and "
            f"{MIN_PROMINENCE:.0f} are needed); focus on the ruler and fill the field with its "
            "lines.",
            prominence=prominence,
        )
    at = _refine(windowed, at)
    for part in (3, 2):
        lower = at[0] / part, at[1] / part
        if math.hypot(*lower) >= lowest and _amplitude(windowed, *lower) > OCTAVE_SHARE * peak:
            at = _refine(windowed, lower)
            break
    period = factor / math.hypot(*at)
    angle = math.degrees(math.atan2(at[0], at[1]))
    return Ruler(period, (angle + 90) % 180 - 90, prominence)


def _refine(windowed: Float64Array, at: tuple[float, float]) -> tuple[float, float]:
    """Return the frequency (y, x), cycles per pixel, at which the image's sum is greatest."""
    rows, columns = windowed.shape
    reach = np.array([1 / rows, 1 / columns])
    centre = np.array(at)
    for _ in range(ZOOMS):
        offsets = np.linspace(-1, 1, STEPS)
        fy, fx = centre[0] + offsets * reach[0], centre[1] + offsets * reach[1]
        along_y = np.exp(-2j * np.pi * np.outer(fy, np.arange(rows)))
        along_x = np.exp(-2j * np.pi * np.outer(np.arange(columns), fx))
        found = np.abs(along_y @ windowed @ along_x)
        y, x = np.unravel_index(int(np.argmax(found)), found.shape)
        centre = np.array([fy[y], fx[x]])
        reach = reach * 2 / (STEPS - 1)
    return float(centre[0]), float(centre[1])


def _amplitude(windowed: Float64Array, fy: float, fx: float) -> float:
    """Return how strong a frequency is, or its near neighbours."""
    rows, columns = windowed.shape
    near = _refine(windowed, (fy, fx))
    along_y = np.exp(-2j * np.pi * near[0] * np.arange(rows))
    along_x = np.exp(-2j * np.pi * near[1] * np.arange(columns))
    return float(abs(along_y @ windowed @ along_x))
