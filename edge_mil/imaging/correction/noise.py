"""The sensor's noise: measured on even glass, and smoothed out where nothing else is there."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.imaging.correction.shading import FULL, ShadingCorrection
from edge_mil.types import Float32Array, UInt8Array

LEAST = 0.5
"""Grey levels of noise below which nothing is done: rounding to whole levels alone makes 0.3."""

SIDE_PX = 5
"""Side of the window: nuclei are ten pixels and more across at the usual pixel sizes."""

STRENGTH = 1.2
"""Share of the noise's own variance that counts as noise: the variance of 25 pixels scatters."""

ROWS_AT_ONCE = 64
"""A strip of a field, with all that is computed of it, stays in the processor's cache."""

MIN_PIXELS, MOST_PIXELS = 1000, 300_000
DUST = 5.0
"""Medians of the absolute noise beyond which a pixel shows dust."""


def glass_noise(pixels: UInt8Array, glass: UInt8Array) -> float | None:
    """Return the standard deviation of the noise on even glass, grey levels, mean of the channels.

    Args:
        pixels: RGB uint8, shape (h, w, 3).
        glass: Where the field is even: uint8 (h', w'), not 0; it may be smaller than the field.

    Returns:
        None where there is too little glass, or none that is not clipped.

    Source:
        The mask of Immerkaer (Computer Vision and Image Understanding 64:300, 1996), which
        answers neither to light that changes slowly nor to straight edges, and his mean.
    """
    height, width = pixels.shape[:2]
    even = cv2.resize(glass, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    even &= pixels.max(axis=2) < 255  # a clipped pixel has lost its noise
    if int(np.count_nonzero(even)) < MIN_PIXELS:
        return None
    kernel = np.outer((1.0, -2.0, 1.0), (1.0, -2.0, 1.0)) / 6
    rest = cv2.filter2D(pixels.astype(np.float32), -1, kernel)[even]
    rest = np.abs(rest[:: max(1, len(rest) // MOST_PIXELS)])
    # The mean has no steps where the median of whole grey levels has; dust is cut off.
    inner = np.minimum(rest, DUST * np.median(rest, axis=0).clip(min=1 / 6))
    return float(inner.mean() * math.sqrt(math.pi / 2))


class NoiseReduction:
    """Takes the sensor's noise out of fields, and leaves all that is more than noise.

    Where a window's variance is that of the noise, a pixel becomes the window's mean; where it is
    larger the pixel keeps its share of it. A network that was trained on scans has never seen
    noise on glass: 3 grey levels moved the probability of a slide by 0.05, after this by less than
    0.01 (`docs/imaging/virtual-microscope.md`).

    Source:
        The guided filter of He, Sun and Tang (ECCV 2010) with the picture as its own guide, its
        regularisation in the form of Lee's local statistics (IEEE PAMI 2:165, 1980): the known
        variance of the noise.
    """

    def __init__(self, deviation: float, gain: Float32Array | None = None) -> None:
        """Take what the calibration measured.

        Args:
            deviation: Of the noise, grey levels, before any correction.
            gain: By which the flat field raised each pixel, float32 (h, w, 1); None: 1.
        """
        self._noise = np.float32(STRENGTH * deviation**2)
        self._gain = None if gain is None else (gain * gain).astype(np.float32)

    def apply(self, pixels: UInt8Array) -> UInt8Array:
        """Return a field without its noise.

        Args:
            pixels: RGB uint8, shape (h, w, 3).
        """
        out = np.empty_like(pixels)
        # Both means look at pixels around: each strip is worked on with what its edge needs.
        edge, height = 2 * (SIDE_PX // 2), len(pixels)
        for top in range(0, height, ROWS_AT_ONCE):
            first, last = max(0, top - edge), min(height, top + ROWS_AT_ONCE + edge)
            gain = None if self._gain is None else self._gain[first:last]
            strip = _smooth(pixels[first:last], self._noise, gain)
            end = min(height, top + ROWS_AT_ONCE)
            out[top:end] = strip[top - first : end - first]
        return out


def noise_reduction(deviation: float, shading: ShadingCorrection | None) -> NoiseReduction | None:
    """Return what takes the noise out of fields that a flat field has corrected.

    Args:
        deviation: Of the noise before the flat field, grey levels.
        shading: The flat field, which raises the noise of dark corners with them.

    Returns:
        None where there is hardly any noise.
    """
    if deviation < LEAST:
        return None
    if shading is None:
        return NoiseReduction(deviation)
    gain = FULL / cv2.transform(shading.divisor.astype(np.float32), np.full((1, 3), 1 / 3))
    return NoiseReduction(deviation, gain.astype(np.float32)[:, :, None])


def _smooth(pixels: UInt8Array, noise: np.float32, gain: Float32Array | None) -> UInt8Array:
    # Written for speed: whole numbers are summed as such, arrays are
    # written over, and no factor of one channel is stretched over three by NumPy.
    seen, mean = pixels.astype(np.float32), _mean(pixels)
    kept = _mean(_grey(seen * seen))
    kept -= _grey(mean * mean)
    np.maximum(kept, 1e-3, out=kept)
    np.divide(noise if gain is None else noise * gain[:, :, 0], kept, out=kept)
    np.subtract(1, kept, out=kept)
    np.maximum(kept, 0, out=kept)
    mean -= _in_all_channels(kept) * mean
    seen *= _in_all_channels(_mean(kept))
    seen += _mean(mean)
    return np.asarray(cv2.convertScaleAbs(seen), np.uint8)


def _in_all_channels(values: Float32Array) -> Float32Array:
    return np.asarray(cv2.merge((values, values, values)), np.float32)


def _grey(values: Float32Array) -> Float32Array:
    """Return the mean of the channels, (h, w)."""
    return np.asarray(cv2.transform(values, np.full((1, 3), 1 / 3)), np.float32)


def _mean(values: Float32Array | UInt8Array) -> Float32Array:
    """Return the mean of each window; a last axis of one is dropped."""
    side, edge = (SIDE_PX, SIDE_PX), cv2.BORDER_REFLECT_101
    return np.asarray(cv2.boxFilter(values, cv2.CV_32F, side, borderType=edge), np.float32)
