"""The light behind one picture, estimated from that picture alone: for `judge`, never a session."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.types import Float32Array, Float64Array, UInt8Array

SMALL_PX = 96
"""Long side of the picture that the surface is fitted to."""

NOMINAL = (240.0, 240.0, 240.0)
"""Colour that empty glass is brought to: the tissue test's own background."""

ABOVE = 0.98
"""Weight of a pixel above the surface; one below has the rest: the surface rides on the glass."""

ROUNDS = 12

GLASS_LEVELS = 12.0
"""Levels around the surface that its second fit takes for glass."""

LEAST_GLASS = 0.02
"""Share of the picture that must lie there for the second fit."""


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundEstimate:
    """The estimated light behind one picture.

    Attributes:
        surface: float32 (h, w, 3) at a small size, levels.
        brightest: The colour where the light is strongest, RGB.
    """

    surface: Float32Array
    brightest: tuple[float, float, float]

    def flatten(self, pixels: UInt8Array, glass: tuple[float, ...] = NOMINAL) -> UInt8Array:
        """Return the picture (h, w, 3) with its glass brought to one colour everywhere."""
        gain = np.asarray(glass, np.float32) / np.maximum(self.surface, 1.0)
        size = (pixels.shape[1], pixels.shape[0])
        whole = cv2.resize(gain.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return cv2.multiply(pixels, whole, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def estimate_background(pixels: UInt8Array) -> BackgroundEstimate:
    """Fit a smooth surface, of fourth order, to the brightest parts of each channel.

    Vignetting, a lamp out of centre and a colour cast go with it. On a field that is all tissue
    it rides on the palest tissue, and the rest of the tissue still lies below.

    Args:
        pixels: RGB uint8 (h, w, 3).
    """
    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / SMALL_PX)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    thin = max(1, math.floor(factor / 4))
    small = cv2.resize(
        np.ascontiguousarray(pixels[::thin, ::thin]), size, interpolation=cv2.INTER_AREA
    )
    terms = _terms(size[1], size[0])
    surface = np.stack(
        [_ride(terms, small[..., channel].ravel().astype(np.float64)) for channel in range(3)], -1
    )
    surface = np.clip(surface, 1.0, 255.0)
    brightest = surface[np.argmax(surface.sum(axis=1))]
    return BackgroundEstimate(
        surface.reshape(size[1], size[0], 3).astype(np.float32),
        (float(brightest[0]), float(brightest[1]), float(brightest[2])),
    )


def _terms(height: int, width: int) -> Float64Array:
    y, x = np.mgrid[0:height, 0:width]
    y = (2.0 * y - (height - 1)) / max(height, width)
    x = (2.0 * x - (width - 1)) / max(height, width)
    powers = [x**i * y**j for i in range(5) for j in range(5 - i)]
    return np.stack([power.ravel() for power in powers], axis=1)


def _ride(terms: Float64Array, levels: Float64Array) -> Float64Array:
    """Return the surface on top of the levels: an expectile, fitted by weighted least squares."""
    weights = np.ones(len(levels))
    surface = levels
    for _ in range(ROUNDS):
        surface = _fit(terms, levels, weights)
        weights = np.where(levels > surface, ABOVE, 1.0 - ABOVE)
    glass = np.abs(levels - surface) <= GLASS_LEVELS
    if glass.mean() >= LEAST_GLASS:
        # What is far below no longer pulls; it keeps a little weight, so that the surface cannot
        # run away where there is no glass.
        surface = _fit(terms, levels, np.where(glass | (levels > surface), 1.0, 1e-3))
    return surface


def _fit(terms: Float64Array, levels: Float64Array, weights: Float64Array) -> Float64Array:
    weighed = terms * weights[:, None]
    # A ridge far below the data's own scale: a picture of a few pixels has fewer than 15.
    system = weighed.T @ terms + 1e-6 * len(levels) * np.eye(terms.shape[1])
    answer: Float64Array = terms @ np.linalg.solve(system, weighed.T @ levels)
    return answer
