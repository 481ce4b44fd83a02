"""Find out from the colours of stained tissue whether a camera sends blue where red should be.

Two numbers of a field's tissue change their sign when red and blue are exchanged. The first is the
logarithm of the mean optical density of red over that of blue: it depends on stain and lamp (eosin
is red, haematoxylin blue). The second is the same ratio of the standard deviations that the green
channel does not explain: it is H&E's own, since its two stains differ in red and hardly in blue. A
field counts as exchanged where its numbers do not fit the calibration's, and would fit with the
channels swapped. How often that is right: `docs/imaging/out-of-distribution.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_mil.imaging import TissueTest
from edge_mil.types import Float64Array, Measure, UInt8Array

EXCHANGED = "red_over_blue"
"""Name of the measure: red over blue of the field's tissue; its threshold is the bundle's."""
PIXELS = 65_536
"""A field is thinned to about this many pixels: its statistics need no more."""
MIN_SHARE = 0.05
"""A field with less tissue is not measured: the few pixels of a rim can have any colour."""
WHITE = 241.0
"""Optical density is 0 here: 240, the usual level of empty glass, plus the 1 against log 0."""
FAINTEST = 1e-3
"""Smallest optical density whose logarithm is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class TissueColour:
    """The colours of a field's tissue.

    Attributes:
        signs: The two numbers that change their sign with the channels, float64 (2,).
        red_over_blue: Ratio of the channels, median over the tissue.
    """

    signs: Float64Array
    red_over_blue: float


@dataclass(frozen=True, slots=True, eq=False)
class ColourReference:
    """The calibration tiles' colours.

    Attributes:
        mean: Mean of the tiles' two numbers, float64 (2,).
        precision: Inverse of their covariance, float64 (2, 2).
        limit: Largest distance (Mahalanobis) that fits the calibration.
        red_over_blue: Median over the tiles.
    """

    mean: Float64Array
    precision: Float64Array
    limit: float
    red_over_blue: float

    def distance(self, signs: Float64Array) -> Float64Array:
        """Return the distance (n,) of numbers (n, 2) from the calibration."""
        centred = signs - self.mean
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", centred, self.precision, centred)))

    def exchanged(self, pixels: UInt8Array, tissue: TissueTest) -> Measure | None:
        """Return the measure of a field; None where it shows too little tissue."""
        colour = tissue_colour(pixels, tissue)
        if colour is None:
            return None
        as_sent, swapped = self.distance(np.stack([colour.signs, -colour.signs]))
        # The second number is H&E's own: tissue of another stain or lamp keeps its sign.
        sign_changed = colour.signs[1] * self.mean[1] < 0
        exchanged = bool(sign_changed and as_sent > self.limit >= swapped)
        return Measure(EXCHANGED, colour.red_over_blue, self.red_over_blue, not exchanged)


def tissue_colour(pixels: UInt8Array, tissue: TissueTest) -> TissueColour | None:
    """Return the colours of a field's tissue; None where it shows too little.

    Args:
        pixels: uint8 (h, w, 3) RGB.
        tissue: Finds the pixels that are tissue.
    """
    # Thin the field, and take the pixels that are tissue.
    step = max(1, round(math.sqrt(pixels.shape[0] * pixels.shape[1] / PIXELS)))
    thin = np.ascontiguousarray(pixels[::step, ::step])
    shown = thin[tissue.mask(thin) > 0].astype(np.float64)
    if len(shown) < max(2.0, MIN_SHARE * thin.shape[0] * thin.shape[1]):
        return None
    # Optical density of each channel (Beer and Lambert).
    red, green, blue = -np.log((shown.T + 1.0) / WHITE)
    signs = [
        _log_ratio(red.mean(), blue.mean()),
        _log_ratio(_unexplained(red, green), _unexplained(blue, green)),
    ]
    ratio = float(np.median((shown[:, 0] + 1.0) / (shown[:, 2] + 1.0)))
    return TissueColour(np.asarray(signs), ratio)


def _unexplained(channel: Float64Array, green: Float64Array) -> float:
    """Return the standard deviation of a channel's residual after a linear fit to green."""
    centred = green - green.mean()
    slope = float(centred @ (channel - channel.mean())) / max(float(centred @ centred), FAINTEST)
    return float(np.std(channel - slope * green))


def _log_ratio(above: float, below: float) -> float:
    return math.log(max(above, FAINTEST) / max(below, FAINTEST))
