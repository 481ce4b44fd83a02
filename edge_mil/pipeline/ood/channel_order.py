"""Colours of stained tissue, and whether a camera sends blue where red should be.

Two numbers of a field's tissue change their sign when red and blue are exchanged: the log of how
dark red is over how dark blue is, and the log of how much red varies, beyond what green says, over
the same of blue. The first is a matter of stain and lamp (eosin is red, haematoxylin blue); the
second is H&E's own, since its two stains differ in red and hardly in blue. A field is called
exchanged where its numbers do not fit the calibration's, and with the channels swapped they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_mil.imaging import TissueTest
from edge_mil.types import Float64Array, Measure, UInt8Array

EXCHANGED = "red_over_blue"
"""Name of the measure: red over blue of the tissue, beside that of the bundle's."""
PIXELS = 65_536
"""A field is thinned to about so many pixels: its statistics need no more."""
MIN_SHARE = 0.05
"""A field with less tissue is not asked: a few pixels of a rim have any colour."""
WHITE = 241.0
FAINTEST = 1e-3
"""Smallest optical density that a logarithm is taken of."""


@dataclass(frozen=True, slots=True, eq=False)
class TissueColour:
    """What a field's tissue looks like.

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
        off = signs - self.mean
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", off, self.precision, off)))

    def exchanged(self, pixels: UInt8Array, tissue: TissueTest) -> Measure | None:
        """Return the measure of a field; None where it shows too little tissue."""
        found = tissue_colour(pixels, tissue)
        if found is None:
            return None
        as_sent, swapped = self.distance(np.stack([found.signs, -found.signs]))
        # The second number is H&E's own: tissue of another stain or lamp keeps its sign.
        turned = found.signs[1] * self.mean[1] < 0
        wrong = bool(turned and as_sent > self.limit >= swapped)
        return Measure(EXCHANGED, found.red_over_blue, self.red_over_blue, not wrong)


def tissue_colour(pixels: UInt8Array, tissue: TissueTest) -> TissueColour | None:
    """Return the colours of a field's tissue; None where it shows too little.

    Args:
        pixels: uint8 (h, w, 3) RGB.
        tissue: Says which pixels are tissue.
    """
    step = max(1, round(math.sqrt(pixels.shape[0] * pixels.shape[1] / PIXELS)))
    thin = np.ascontiguousarray(pixels[::step, ::step])
    shown = thin[tissue.mask(thin) > 0].astype(np.float64)
    if len(shown) < max(2.0, MIN_SHARE * thin.shape[0] * thin.shape[1]):
        return None
    red, green, blue = -np.log((shown.T + 1.0) / WHITE)
    signs = [
        _log_ratio(red.mean(), blue.mean()),
        _log_ratio(_beyond(red, green), _beyond(blue, green)),
    ]
    ratio = float(np.median((shown[:, 0] + 1.0) / (shown[:, 2] + 1.0)))
    return TissueColour(np.asarray(signs), ratio)


def _beyond(channel: Float64Array, green: Float64Array) -> float:
    """Return the standard deviation of a channel's density that green does not explain."""
    off = green - green.mean()
    slope = float(off @ (channel - channel.mean())) / max(float(off @ off), FAINTEST)
    return float(np.std(channel - slope * green))


def _log_ratio(above: float, below: float) -> float:
    return math.log(max(above, FAINTEST) / max(below, FAINTEST))
