"""Focus: features of a field's spectrum for the gate, and sharpness in grey levels squared."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.quality.spectrum import (
    NOISE_BAND,
    NOISE_MARGIN,
    FieldSpectrum,
    coefficient_counts,
)
from edge_mil.types import Float32Array, UInt8Array

FLOOR_SHARE, FLOOR_POWER = 0.1, 0.03
"""Least corrected power: this share of the noise plus this power, grey levels squared, so that no
logarithm of 0 is taken. Rounding to whole grey levels alone has a power of 1/12."""

SECTOR_FLOOR = 1.5
"""Factor of the floor in a sector: with fewer coefficients than a ring its mean scatters more."""

FOCUS_WEIGHTS = (12.1, 5.1, 1.3)
FOCUS_OFFSET = 21.4
"""Of `focus_features`: a logistic regression by `tests/benchmarks/gates/fit_weights.py`."""

LAG_PX = 2
"""Distance of the two pixels whose difference is measured: a camera's pixel is often finer than
its lens resolves, so the difference of neighbours is mostly noise."""

IMMERKAER_GAIN = 36.0
"""Sum of the squares of Immerkaer's mask: its factor on the variance of white noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Logarithm (base 10) of a field's power spectrum without the sensor's noise.

    Attributes:
        rings: By band, float32 (BANDS,).
        sectors: By band and direction, each smoothed with its neighbours, float32
            (BANDS, DIRECTIONS).
        floor: Value of a band that holds nothing but noise.
    """

    rings: Float32Array
    sectors: Float32Array
    floor: float


def noise_corrected(spectrum: FieldSpectrum) -> Contrast:
    """Subtract the sensor's noise from a spectrum.

    The sensor's noise is white, and the corners of the spectrum hold nothing else, so their power
    is that of the noise in every band. Blur happens before the noise is added and leaves it as it
    is, so a blurred field does not pass for a sharp one because it is noisy.
    """
    count, power = coefficient_counts(), spectrum.power
    # Mean over all directions of a band, weighted with the number of coefficients.
    rings = (power * count).sum(axis=1) / np.maximum(count.sum(axis=1), 1.0)
    # Mean over a direction and its two neighbours, with weights 1 2 1.
    nearby = np.roll(count, 1, 1) + 2 * count + np.roll(count, -1, 1)
    weighted = power * count
    sectors = (np.roll(weighted, 1, 1) + 2 * weighted + np.roll(weighted, -1, 1)) / np.maximum(
        nearby, 1e-3
    )
    # Subtract the noise, keep at least the floor, and take the logarithm.
    noise = NOISE_MARGIN * rings[NOISE_BAND]
    floor = FLOOR_SHARE * rings[NOISE_BAND] + FLOOR_POWER
    return Contrast(
        np.log10(np.maximum(rings - noise, floor)).astype(np.float32),
        np.log10(np.maximum(sectors - noise, SECTOR_FLOOR * floor)).astype(np.float32),
        float(np.log10(floor)),
    )


def focus_features(contrast: Contrast) -> tuple[float, float, float]:
    """Return the features of the focus gate, in decades; each is larger for a sharp field.

    The steepest fall between two bands of 0.045 to 0.25 cycles per pixel, the fall from 0.05 to
    0.15, and the height of 0.15 above the noise.

    Source:
        The spectrum of a natural image falls as a power of the frequency (Field, J. Opt. Soc. Am.
        A 4:2379, 1987); tissue in focus falls by 0.4 to 0.9 decades per half octave. The transfer
        function of a disc of confusion falls to 0 at 0.61 / radius (Stokseth, J. Opt. Soc. Am.
        59:1314, 1969), which shows as one steep step.
    """
    rings = contrast.rings
    steepest = float(np.diff(rings)[2:6].min())
    return steepest, float(rings[5] - rings[2]), float(rings[5] - contrast.floor)


def focus_log_odds(contrast: Contrast) -> float:
    """Return the log odds that a field is in focus."""
    return log_odds(focus_features(contrast), FOCUS_WEIGHTS, FOCUS_OFFSET)


def log_odds(features: tuple[float, ...], weights: tuple[float, ...], offset: float) -> float:
    """Return the log odds of a logistic regression."""
    return offset + sum(w * x for w, x in zip(weights, features, strict=True))


def box_sharpness(grey: UInt8Array) -> float:
    """Return the noise-corrected contrast of pixels two apart, grey levels squared.

    It depends on these pixels alone, so equal pixels are equally sharp. It compares images of one
    place of the slide; between places it says more of the tissue than of the focus.

    Args:
        grey: uint8 (h, w), at least 4 pixels each way; else the result is 0.

    Source:
        Mean squared difference at a lag of two pixels, across and down (Brenner et al., J.
        Histochem. Cytochem. 24:100, 1976), less twice the variance of the noise (Immerkaer, "Fast
        noise variance estimation", Comput. Vis. Image Underst. 64:300, 1996).
    """
    if min(grey.shape) < 2 * LAG_PX:
        return 0.0
    height, width = grey.shape
    across = cv2.norm(grey[:, LAG_PX:], grey[:, :-LAG_PX], cv2.NORM_L2SQR)
    down = cv2.norm(grey[LAG_PX:], grey[:-LAG_PX], cv2.NORM_L2SQR)
    energy = across / (height * (width - LAG_PX)) + down / (width * (height - LAG_PX))
    # The second derivative across of that down is Immerkaer's mask (1 -2 1, -2 4 -2, 1 -2 1), in
    # whole numbers and in half the time of a filter with that mask.
    response = cv2.Sobel(grey, cv2.CV_16S, 2, 2, ksize=3)[1:-1, 1:-1]
    noise = cv2.norm(response, cv2.NORM_L2SQR) / (response.size * IMMERKAER_GAIN)
    # Each squared difference holds twice the noise's variance; `energy` is the sum of two of them.
    return float(max(0.0, energy / 2.0 - 2.0 * noise))


def mean_sharpness(blocks: UInt8Array) -> float:
    """Return the mean `box_sharpness` of grey blocks, uint8 (n, h, w); 0 without a block."""
    if not len(blocks):
        return 0.0
    return float(np.mean([box_sharpness(block) for block in blocks]))
