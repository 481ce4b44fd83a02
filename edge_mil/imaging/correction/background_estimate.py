"""Estimate the light of one image from that image alone: for `edge-mil judge`, no session."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.types import Float32Array, Float64Array, UInt8Array

SMALL_PX = 96
"""Long side of the shrunk image that the surface is fitted to."""

NOMINAL = (240.0, 240.0, 240.0)
"""Colour of empty glass after the correction, RGB: the tissue test's own background."""

ORDER = 4
"""Degree of the surface: enough for vignetting whose centre is not the image's."""

EXPECTILE = 0.98
"""Weight of a pixel above the surface; one below has the rest, so that the surface follows the
brightest pixels, which are glass."""

ITERATIONS = 12
"""Reweighted fits; the fit converges in fewer."""

GLASS_LEVELS = 12.0
"""Distance from the surface, grey levels, up to which a pixel is glass in the second fit."""

MIN_GLASS_SHARE = 0.02
"""Share of the image that must be glass for the second fit."""

TISSUE_WEIGHT = 1e-3
"""Weight of tissue in the second fit, so that the surface stays bounded where there is no glass."""

RIDGE = 1e-6
"""Ridge of the fit, far below the data's own scale: an image of a few pixels has fewer of them than
the surface has terms."""


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundEstimate:
    """The estimated light of one image.

    Attributes:
        surface: Level of empty glass, float32 (h, w, 3), at a small size.
        brightest: Colour of the glass where the light is strongest, RGB 0 to 255.
    """

    surface: Float32Array
    brightest: tuple[float, float, float]

    def flatten(self, pixels: UInt8Array, glass: tuple[float, ...] = NOMINAL) -> UInt8Array:
        """Return the image with the same colour of glass everywhere.

        Args:
            pixels: RGB uint8 (h, w, 3).
            glass: That colour, RGB 0 to 255.
        """
        gain = np.asarray(glass, np.float32) / np.maximum(self.surface, 1.0)
        size = (pixels.shape[1], pixels.shape[0])
        enlarged = cv2.resize(gain.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return cv2.multiply(pixels, enlarged, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def estimate_background(pixels: UInt8Array) -> BackgroundEstimate:
    """Fit a polynomial surface to the brightest pixels of each channel.

    It models vignetting, a lamp out of centre and a colour cast. In a field that is all tissue it
    follows the palest tissue, and the rest of the tissue still lies below.

    Args:
        pixels: RGB uint8 (h, w, 3).

    Source:
        Retrospective shading correction by a polynomial background (Likar et al., J. Microsc.
        197:285, 2000); the fit is an expectile regression (Newey and Powell, Econometrica 55:819,
        1987).
    """
    # Shrink: thinning first, then area averages over at least four pixels each way.
    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / SMALL_PX)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    step = max(1, math.floor(factor / 4))
    small = cv2.resize(
        np.ascontiguousarray(pixels[::step, ::step]), size, interpolation=cv2.INTER_AREA
    )
    # One surface per channel.
    terms = _polynomial(size[1], size[0])
    surface = np.stack(
        [_upper_surface(terms, small[..., c].ravel().astype(np.float64)) for c in range(3)], -1
    )
    surface = np.clip(surface, 1.0, 255.0)
    brightest = surface[np.argmax(surface.sum(axis=1))]
    return BackgroundEstimate(
        surface.reshape(size[1], size[0], 3).astype(np.float32),
        (float(brightest[0]), float(brightest[1]), float(brightest[2])),
    )


def _polynomial(height: int, width: int) -> Float64Array:
    """Return the powers x^i y^j, i + j <= ORDER, of each pixel: float64 (pixels, terms)."""
    y, x = np.mgrid[0:height, 0:width]
    y = (2.0 * y - (height - 1)) / max(height, width)
    x = (2.0 * x - (width - 1)) / max(height, width)
    powers = [x**i * y**j for i in range(ORDER + 1) for j in range(ORDER + 1 - i)]
    return np.stack([power.ravel() for power in powers], axis=1)


def _upper_surface(terms: Float64Array, levels: Float64Array) -> Float64Array:
    """Return the expectile surface of the levels, by iteratively reweighted least squares."""
    weights = np.ones(len(levels))
    surface = levels
    for _ in range(ITERATIONS):
        surface = _fit(terms, levels, weights)
        weights = np.where(levels > surface, EXPECTILE, 1.0 - EXPECTILE)
    # A second fit to the glass alone, which tissue far below no longer pulls down.
    glass = np.abs(levels - surface) <= GLASS_LEVELS
    if glass.mean() >= MIN_GLASS_SHARE:
        weights = np.where(glass | (levels > surface), 1.0, TISSUE_WEIGHT)
        surface = _fit(terms, levels, weights)
    return surface


def _fit(terms: Float64Array, levels: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the weighted least-squares fit of the levels, by the normal equations."""
    weighted = terms * weights[:, None]
    system = weighted.T @ terms + RIDGE * len(levels) * np.eye(terms.shape[1])
    fitted: Float64Array = terms @ np.linalg.solve(system, weighted.T @ levels)
    return fitted
