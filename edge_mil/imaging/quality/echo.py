"""Doubled exposures and vibration: an image that holds a shifted copy of itself."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from edge_mil.imaging.quality.spectrum import BLOCK_PX, FieldSpectrum
from edge_mil.types import Float64Array, Int64Array

NEAREST_PX, FARTHEST_PX = 4.0, 28.0
"""Distances at which a copy is searched: nearer ones blur like defocus, and blocks of 64 px show no
farther ones."""

CORNER = 0.5
"""Cycles per pixel from which the spectrum holds nothing but noise."""

LOWEST, RAMP_LOW, RAMP_HIGH = 0.02, 0.02, 0.1
"""Cycles per pixel below which the spectrum is left out, and widths of the ramps at both ends."""

MIN_POWER = 0.03
"""Added to the power, grey levels squared, as the focus gate does: rounding has a power of 1/12."""

SMOOTH_PX = 7
"""Side of the mean that is subtracted: the peak of a copy is narrow, that of the distance between
cells is broad."""

MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute value."""


def echo_strength(spectrum: FieldSpectrum) -> float:
    """Return the highest cepstral peak at the distance of a copy, in deviations of the cepstrum.

    A copy shifted by d multiplies the spectrum by a cosine of period 1 / d, which is a narrow peak
    at d in the spectrum of its logarithm. Steady motion and defocus have none of that height.

    Source:
        Bogert, Healy and Tukey, "The quefrency alanysis of time series for echoes", 1963. Measured
        by `tests/benchmarks/gates/confusion.py`.
    """
    rings, counts, weight, inside = _tables()
    power = spectrum.plane.astype(np.float64)
    # The logarithm, with the noise's level as floor, and without its mean over each ring.
    log = np.log(power + power[weight < 0].mean() + MIN_POWER)
    means = np.bincount(rings.ravel(), log.ravel(), len(counts)) / counts
    cepstrum = np.fft.irfft2((log - means[rings]) * np.maximum(weight, 0.0), (BLOCK_PX, BLOCK_PX))
    # Narrow peaks only; the cepstrum is periodic.
    edge = SMOOTH_PX
    wrapped = np.pad(cepstrum, edge, mode="wrap")
    narrow = (wrapped - cv2.blur(wrapped, (SMOOTH_PX, SMOOTH_PX)))[edge:-edge, edge:-edge][inside]
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(narrow)))
    return float(narrow.max() / deviation) if deviation > 0 else 0.0


@lru_cache(maxsize=1)
def _tables() -> tuple[Int64Array, Float64Array, Float64Array, np.ndarray]:
    """Return the ring of each coefficient and the size of each ring, the weights, and the search.

    The weights are -1 in the corners, which hold the noise.
    """
    fy, fx = np.fft.fftfreq(BLOCK_PX)[:, None], np.fft.rfftfreq(BLOCK_PX)[None]
    frequency = np.hypot(fy, fx)
    rings = np.rint(frequency * BLOCK_PX).astype(np.int64)
    counts = np.maximum(np.bincount(rings.ravel()), 1).astype(np.float64)
    high = np.clip((CORNER - frequency) / RAMP_HIGH, 0.0, 1.0)
    weight = high * np.clip((frequency - LOWEST) / RAMP_LOW, 0.0, 1.0)
    weight[frequency >= CORNER] = -1.0
    y, x = (np.fft.fftfreq(BLOCK_PX) * BLOCK_PX for _ in range(2))
    distance = np.hypot(y[:, None], x[None])
    return rings, counts, weight, (distance >= NEAREST_PX) & (distance <= FARTHEST_PX)
