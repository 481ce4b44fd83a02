"""The sensor's noise: measured on even glass, and smoothed where a field shows nothing else."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.imaging.correction.shading import FULL, ShadingCorrection
from edge_mil.types import Float32Array, UInt8Array

MIN_NOISE = 0.5
"""Standard deviation, grey levels, below which nothing is smoothed: rounding alone makes 0.3."""

SIDE_PX = 5
"""Side of the window: nuclei are ten pixels and more across at the usual pixel sizes."""

NOISE_FACTOR = 1.2
"""Factor of the noise's variance that counts as noise: the variance of 25 pixels scatters."""

MIN_VARIANCE = 1e-3
"""Least variance of a window, grey levels squared, against a division by 0."""

ROWS_AT_ONCE = 64
"""Rows of a strip that fits the CPU's cache with all intermediate arrays."""

MIN_PIXELS, MAX_PIXELS = 1000, 300_000
"""Pixels of glass that are needed, and that are used at most."""

DUST_MEDIANS = 5.0
"""Medians of the absolute residual at which a residual is cut off: beyond it is dust."""

MIN_MEDIAN = 1 / 6
"""Least median residual: the smallest step of the mask's response to whole grey levels."""


def glass_noise(pixels: UInt8Array, glass: UInt8Array) -> float | None:
    """Return the standard deviation of the noise on even glass, grey levels, mean of the channels.

    Args:
        pixels: RGB uint8, shape (h, w, 3).
        glass: Mask of even glass, uint8 (h', w'), not 0 there; it may be smaller than the field.

    Returns:
        None where there is too little glass, or all of it is clipped.

    Source:
        Immerkaer, "Fast noise variance estimation" (Comput. Vis. Image Underst. 64:300, 1996):
        the mask answers neither to slowly changing light nor to straight edges, and the standard
        deviation of a normal distribution is its mean absolute value times the root of pi / 2.
    """
    # Pixels of even glass; a clipped pixel has lost its noise.
    height, width = pixels.shape[:2]
    even = cv2.resize(glass, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    even &= pixels.max(axis=2) < 255
    if int(np.count_nonzero(even)) < MIN_PIXELS:
        return None
    # Immerkaer's mask, divided by its gain on the standard deviation of white noise.
    kernel = np.outer((1.0, -2.0, 1.0), (1.0, -2.0, 1.0)) / 6
    residual = cv2.filter2D(pixels.astype(np.float32), -1, kernel)[even]
    residual = np.abs(residual[:: max(1, len(residual) // MAX_PIXELS)])
    # Cut off dust. The median of whole grey levels has steps, so it only sets the limit.
    limit = DUST_MEDIANS * np.median(residual, axis=0).clip(min=MIN_MEDIAN)
    return float(np.minimum(residual, limit).mean() * math.sqrt(math.pi / 2))


class NoiseReduction:
    """Smooths the sensor's noise and keeps all structure that is more than noise.

    Where a window's variance is that of the noise, a pixel becomes the window's mean; where it is
    larger the pixel keeps the rest. Networks are trained on scans without noise on the glass: 3
    grey levels moved the probability of a slide by 0.05, and after smoothing by less than 0.01
    (`docs/imaging/virtual-microscope.md`).

    Source:
        The guided filter of He, Sun and Tang (ECCV 2010) with the image as its own guide; the
        regularisation is Lee's (IEEE Trans. PAMI 2:165, 1980): the known variance of the noise.
    """

    def __init__(self, deviation: float, gain: Float32Array | None = None) -> None:
        """Set the noise of the camera.

        Args:
            deviation: Standard deviation before any correction, grey levels.
            gain: Factor by which the flat field raised each pixel, float32 (h, w, 1); None: 1.
        """
        self._noise = np.float32(NOISE_FACTOR * deviation**2)
        self._gain = None if gain is None else (gain * gain).astype(np.float32)

    def apply(self, pixels: UInt8Array) -> UInt8Array:
        """Return a field with its noise smoothed.

        Args:
            pixels: RGB uint8, shape (h, w, 3).

        Returns:
            The same shape; a new array.
        """
        out = np.empty_like(pixels)
        # Two means follow each other, so each strip has two half windows of rows around it.
        edge, height = 2 * (SIDE_PX // 2), len(pixels)
        for top in range(0, height, ROWS_AT_ONCE):
            first, last = max(0, top - edge), min(height, top + ROWS_AT_ONCE + edge)
            gain = None if self._gain is None else self._gain[first:last]
            strip = _smoothed(pixels[first:last], self._noise, gain)
            end = min(height, top + ROWS_AT_ONCE)
            out[top:end] = strip[top - first : end - first]
        return out


def noise_reduction(deviation: float, shading: ShadingCorrection | None) -> NoiseReduction | None:
    """Return the noise reduction for fields that a flat field has corrected.

    Args:
        deviation: Standard deviation of the noise before the flat field, grey levels.
        shading: The flat field, which raises the noise of dark corners with them; None: none.

    Returns:
        None where the noise is below MIN_NOISE.
    """
    if deviation < MIN_NOISE:
        return None
    if shading is None:
        return NoiseReduction(deviation)
    gain = FULL / cv2.transform(shading.divisor.astype(np.float32), np.full((1, 3), 1 / 3))
    return NoiseReduction(deviation, gain.astype(np.float32)[:, :, None])


def _smoothed(pixels: UInt8Array, noise: np.float32, gain: Float32Array | None) -> UInt8Array:
    # Written for speed: whole numbers are summed as such, arrays are reused, and OpenCV instead
    # of NumPy multiplies three channels with one factor.
    values, mean = pixels.astype(np.float32), _window_mean(pixels)
    # Variance of each window, mean of the channels.
    share = _window_mean(_grey(values * values))
    share -= _grey(mean * mean)
    np.maximum(share, MIN_VARIANCE, out=share)
    # Share a of the variance that is structure: 1 - noise / variance, at least 0.
    np.divide(noise if gain is None else noise * gain[:, :, 0], share, out=share)
    np.subtract(1, share, out=share)
    np.maximum(share, 0, out=share)
    # The guided filter's output, mean(a) value + mean((1 - a) mean).
    mean -= _in_all_channels(share) * mean
    values *= _in_all_channels(_window_mean(share))
    values += _window_mean(mean)
    return np.asarray(cv2.convertScaleAbs(values), np.uint8)


def _in_all_channels(values: Float32Array) -> Float32Array:
    return np.asarray(cv2.merge((values, values, values)), np.float32)


def _grey(values: Float32Array) -> Float32Array:
    """Return the mean of the channels, (h, w)."""
    return np.asarray(cv2.transform(values, np.full((1, 3), 1 / 3)), np.float32)


def _window_mean(values: Float32Array | UInt8Array) -> Float32Array:
    """Return the mean over the window around each pixel, of each channel by itself."""
    side, edge = (SIDE_PX, SIDE_PX), cv2.BORDER_REFLECT_101
    return np.asarray(cv2.boxFilter(values, cv2.CV_32F, side, borderType=edge), np.float32)
