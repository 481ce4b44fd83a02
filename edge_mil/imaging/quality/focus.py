"""How sharp a field is: against itself for the gate, in grey levels for planes of one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import FrameError
from edge_mil.imaging.quality.spectrum import BLOCK_PX, FieldSpectrum, coefficients
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float32Array, UInt8Array

NOISE_BAND = 9
"""Band of the corners of the spectrum."""

NOISE_MARGIN = 1.1
"""The noise is taken off with this factor: a mean of a few blocks is a little off itself."""

LEAST_SHARE, LEAST = 0.1, 0.03
"""What is left is never below this share of the noise plus this power: no logarithm of nothing.
A picture of whole grey levels has a noise of 1/12 by itself."""

LAG_PX = 2
"""Distance of the two pixels whose difference is the sharpness: one pixel of a camera is often
finer than its lens, and mostly noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """The logarithm (base 10) of a spectrum without its noise.

    Attributes:
        rings: By band, float32 (BANDS,).
        sectors: By band and direction, each smoothed with its neighbours (BANDS, DIRECTIONS).
        floor: What would stand there where there is nothing but noise.
    """

    rings: Float32Array
    sectors: Float32Array
    floor: float


def contrast(spectrum: FieldSpectrum) -> Contrast:
    """Take the sensor's noise off a spectrum.

    Noise is white, and the corners of the spectrum hold nothing else; blur that came before the
    noise leaves them alone, so a blurred field does not look sharp because it is noisy.
    """
    count = coefficients()
    power = spectrum.power
    rings = (power * count).sum(axis=1) / np.maximum(count.sum(axis=1), 1.0)
    near = np.roll(count, 1, 1) + 2 * count + np.roll(count, -1, 1)
    weighed = power * count
    sectors = (np.roll(weighed, 1, 1) + 2 * weighed + np.roll(weighed, -1, 1)) / np.maximum(
        near, 1e-3
    )
    noise = NOISE_MARGIN * rings[NOISE_BAND]
    floor = LEAST_SHARE * rings[NOISE_BAND] + LEAST
    return Contrast(
        np.log10(np.maximum(rings - noise, floor)).astype(np.float32),
        np.log10(np.maximum(sectors - noise, 1.5 * floor)).astype(np.float32),
        float(np.log10(floor)),
    )


def focus_numbers(of: Contrast) -> tuple[float, float, float]:
    """Return what tells a blurred field from a sharp one, each larger when sharp, in decades.

    The steepest fall between two bands of 0.045 to 0.25 cycles per pixel (sharp tissue falls by
    0.4 to 0.9 per half octave whatever it is, a disc of confusion brings a cliff), the fall from
    0.05 to 0.15, and how far 0.15 stands above the noise.
    """
    rings = of.rings
    steepest = float(np.diff(rings)[2:6].min())
    return steepest, float(rings[5] - rings[2]), float(rings[5] - of.floor)


def box_sharpness(grey: UInt8Array) -> float:
    """Return the noise-corrected contrast of pixels two apart, grey levels squared.

    It depends on these pixels alone, so equal pixels are equally sharp. It compares pictures of
    one place; between places it says more of the tissue than of the focus.

    Args:
        grey: uint8 (h, w), at least 4 pixels each way; else 0.

    Source:
        Mean square difference (a Brenner gradient, both ways), less twice the variance of the
        noise after Immerkaer, "Fast noise variance estimation", CVIU 64 (1996).
    """
    if min(grey.shape) < 2 * LAG_PX:
        return 0.0
    height, width = grey.shape
    across = cv2.norm(grey[:, LAG_PX:], grey[:, :-LAG_PX], cv2.NORM_L2SQR)
    down = cv2.norm(grey[LAG_PX:], grey[:-LAG_PX], cv2.NORM_L2SQR)
    energy = across / (height * (width - LAG_PX)) + down / (width * (height - LAG_PX))
    # The second differences across and down are Immerkaer's mask (1 -2 1, -2 4 -2, 1 -2 1), in
    # whole numbers and at half the time of a filter with that mask.
    answer = cv2.Sobel(grey, cv2.CV_16S, 2, 2, ksize=3)[1:-1, 1:-1]
    noise = cv2.norm(answer, cv2.NORM_L2SQR) / (answer.size * _IMMERKAER_GAIN)
    return float(max(0.0, energy / 2.0 - 2.0 * noise))


_IMMERKAER_GAIN = 36.0
"""Sum of the squares of the mask: by how much it enlarges the variance of white noise."""


def mean_sharpness(blocks: Sequence[UInt8Array] | UInt8Array) -> float:
    """Return the mean sharpness of the blocks; 0 without one."""
    if not len(blocks):
        return 0.0
    return float(np.mean([box_sharpness(block) for block in blocks]))


def sharpest(frames: Iterable[UInt8Array], tissue: TissueTest | None = None) -> int:
    """Return which of the pictures of one place, through the focus, is the sharpest.

    Args:
        frames: RGB uint8 (h, w, 3), all of one size.
        tissue: Where given, only blocks that show tissue in any of the planes count.

    Raises:
        FrameError: There is no picture, or their sizes differ.
    """
    planes = list(frames)
    if not planes:
        raise FrameError("A focus stack needs at least one picture; got none.")
    if any(plane.shape != planes[0].shape for plane in planes):
        raise FrameError("The pictures of a focus stack must all have one size.")
    height, width = planes[0].shape[:2]
    sums = np.zeros(len(planes))
    for y in range(0, max(1, height - BLOCK_PX + 1), BLOCK_PX):
        for x in range(0, max(1, width - BLOCK_PX + 1), BLOCK_PX):
            parts = [plane[y : y + BLOCK_PX, x : x + BLOCK_PX] for plane in planes]
            if tissue is not None and not any(tissue.count(part) for part in parts):
                continue
            sums += [box_sharpness(_grey(part)) for part in parts]
    return int(np.argmax(sums))


def _grey(pixels: UInt8Array) -> UInt8Array:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
