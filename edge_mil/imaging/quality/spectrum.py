"""The power spectrum of a field's tissue by frequency band and direction, from grey blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float32Array, Float64Array, Int64Array, UInt8Array

BLOCK_PX = 64
"""Side of a block: its spectrum begins at 1/64 cycle per pixel, where a disc of confusion of 12
pixels still transmits contrast."""

MAX_BLOCKS = 72
"""Blocks of one field at most: a large field is sampled, not covered. A block takes 40 us."""

BAND_EDGES = (0.02, 0.03, 0.045, 0.0625, 0.09, 0.125, 0.18, 0.25, 0.355, 0.5, 0.72)
"""Ends of the bands, cycles per pixel, half an octave each. The last band holds the corners of the
spectrum, which no lens fills: its power is the sensor's noise."""

BANDS = len(BAND_EDGES) - 1
DIRECTIONS = 8
"""Sectors of 22.5 degrees each."""

SMALL_BLOCKS = 4
"""Blocks along a side of a small field, where they overlap if need be."""

THINNING_SMALL, THINNING_LARGE, LARGE_PX = 4, 8, 2_000_000
"""Every fourth pixel is tested for tissue, in a field of more than two million every eighth."""

MIN_BLOCKS = 12
"""Tissue blocks from which a field is judged; one of 224 x 224 pixels has 16. With one to eight
blocks at the soft margin of the tissue one sharp field in ten was refused."""

MIN_BLOCK_SHARE = 0.05
"""Share of tissue pixels from which a block is used."""

TEXTURED_SHARE = 0.5
"""Share of the tissue blocks that count: the richer half; smooth ones say little about focus."""

WEIGHT_EXPONENT = 0.5
"""A block counts with its coarse power to minus this: one edge of the tissue, with its one
direction, must not dominate the field (fibres of bone beside glass passed for motion)."""

NOISE_BAND = BANDS - 1
"""Band of the corners of the spectrum, which no lens fills."""

STRUCTURE_FALL = 1.7
"""Least factor by which the power of structure falls to the corners: fields that were made much
smaller (`oral_he`) have 1.7 to 3.3, other good ones 2.9 and more, white noise 1."""

NOISE_MARGIN = 1.1
"""Factor of the noise that is subtracted: a mean of a few blocks is itself inexact."""

COARSE_BANDS = slice(1, 4)
"""Bands of the coarse power."""

MIN_COARSE_POWER = 1e-3
"""Added to the coarse power, grey levels squared, so that a flat block has a finite weight."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldSpectrum:
    """The mean power spectrum of a field's textured tissue.

    Attributes:
        power: Weighted mean power of a coefficient, grey levels squared (white noise of
            deviation s gives s^2), by band and direction, float32 (BANDS, DIRECTIONS).
        blocks: Number of blocks that it is the mean of.
        contrast: Mean of the standard deviations of those blocks, without the sensor's noise and
            without the slope of the light across a block, grey levels: 0 for even grey.
        plane: Power of each coefficient, weighted as `power`, float32 (BLOCK_PX, BLOCK_PX / 2 + 1),
            as NumPy's `rfft2` orders them.
    """

    power: Float32Array
    blocks: int
    contrast: float
    plane: Float32Array

    @property
    def white_noise(self) -> float:
        """Standard deviation of white noise that the spectrum can hold, grey levels.

        Structure, however fine, falls from the second last band to the corners; noise does not.
        With r the power of both bands, and structure that falls by the factor f, the noise n obeys
        r8 - n = f (r9 - n).
        """
        counts = coefficient_counts()
        ring, corner = (
            float((self.power[band] * counts[band]).sum() / counts[band].sum())
            for band in (NOISE_BAND - 1, NOISE_BAND)
        )
        return math.sqrt(max(0.0, (STRUCTURE_FALL * corner - ring) / (STRUCTURE_FALL - 1.0)))


def tissue_blocks(
    pixels: UInt8Array, tissue: TissueTest, grey: UInt8Array | None = None
) -> UInt8Array:
    """Return blocks of a field that show tissue, spread over all that do.

    Args:
        pixels: RGB uint8 (h, w, 3).
        tissue: Its share in a block, on thinned pixels, is compared with MIN_BLOCK_SHARE.
        grey: The field in grey, uint8 (h, w), where it was computed already.

    Returns:
        At most MAX_BLOCKS blocks in grey, uint8 (n, BLOCK_PX, BLOCK_PX).
    """
    pixels = _at_least_one_block(pixels)
    corners = _corners(pixels.shape[0], pixels.shape[1])
    # The tissue of thinned pixels, summed over every block by an integral image.
    step = THINNING_LARGE if pixels.shape[0] * pixels.shape[1] > LARGE_PX else THINNING_SMALL
    mask = tissue.mask(np.ascontiguousarray(pixels[::step, ::step]))
    sums = cv2.integral(cv2.threshold(mask, 0, 1, cv2.THRESH_BINARY)[1])
    y0, x0 = (corners // step).T
    y1, x1 = ((corners + BLOCK_PX) // step).T
    tissue_px = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    # Of the blocks with tissue, evenly spaced ones.
    full = np.flatnonzero(tissue_px >= MIN_BLOCK_SHARE * (y1 - y0) * (x1 - x0))
    chosen = full[np.linspace(0, len(full) - 1, min(len(full), MAX_BLOCKS)).astype(int)]
    blocks = np.empty((len(chosen), BLOCK_PX, BLOCK_PX), np.uint8)
    for row, (y, x) in enumerate(corners[chosen]):
        block = np.s_[y : y + BLOCK_PX, x : x + BLOCK_PX]
        if grey is not None and grey.shape == pixels.shape[:2]:
            blocks[row] = grey[block]
        else:
            cv2.cvtColor(pixels[block], cv2.COLOR_RGB2GRAY, dst=blocks[row])
    return blocks


def field_spectrum(blocks: UInt8Array) -> FieldSpectrum | None:
    """Return the mean power spectrum of the more textured half of a field's blocks.

    Args:
        blocks: In grey, uint8 (n, BLOCK_PX, BLOCK_PX).

    Returns:
        None without a block.

    Source:
        Averaged periodograms of windowed blocks (Welch, IEEE Trans. Audio Electroacoust. 15:70,
        1967), summed over rings and sectors of the frequency plane.
    """
    if not len(blocks):
        return None
    # The blocks with the largest standard deviation.
    deviations = np.array([cv2.meanStdDev(block)[1][0, 0] for block in blocks])
    count = max(1, round(len(blocks) * TEXTURED_SHARE))
    richest = np.sort(np.argsort(-deviations, kind="stable")[:count])
    window, binning, coarse_binning, _ = _tables()
    # Periodograms: mean off, Hann window, DFT, squared real and imaginary parts.
    rich = blocks[richest].astype(np.float32)
    rich -= rich.mean(axis=(1, 2), keepdims=True)
    variance = _variance_about_plane(rich)
    rich *= window
    for block in rich:
        cv2.dft(block, dst=block)
    rich *= rich
    periodograms = rich.reshape(count, -1)
    periodograms /= BLOCK_PX * BLOCK_PX
    # Weight of each block by its coarse power, then the weighted mean, then the mean of each bin.
    # OpenCV multiplies here, not NumPy: BLAS would wake its threads for a millisecond's work, and
    # wait for them where the processor is busy.
    coarse = _product(periodograms, coarse_binning).ravel()
    weights = (coarse + MIN_COARSE_POWER) ** -WEIGHT_EXPONENT
    packed = _product((weights / weights.sum())[None], periodograms)
    mean = _product(binning, packed.T)
    power = mean.reshape(BANDS, DIRECTIONS)
    # Without the sensor's noise, whose variance is the power of the corners.
    corners = coefficient_counts()[NOISE_BAND]
    noise = float((power[NOISE_BAND] * corners).sum() / corners.sum())
    contrast = math.sqrt(max(0.0, float(np.sqrt(variance).mean()) ** 2 - NOISE_MARGIN * noise))
    return FieldSpectrum(power, count, contrast, _unpacked(packed.reshape(BLOCK_PX, BLOCK_PX)))


def _unpacked(packed: Float32Array) -> Float32Array:
    """Return the power of each coefficient from the squares of OpenCV's packed real DFT."""
    half = BLOCK_PX // 2
    plane = np.empty((BLOCK_PX, half + 1), np.float32)
    # Real and imaginary parts lie side by side, in the two end columns one below the other.
    plane[:, 1:half] = packed[:, 1:-1:2] + packed[:, 2:-1:2]
    for column, end in ((0, 0), (half, -1)):
        numbers = packed[:, end]
        plane[0, column], plane[half, column] = numbers[0], numbers[-1]
        plane[1:half, column] = numbers[1:-1:2] + numbers[2:-1:2]
        plane[half + 1 :, column] = plane[half - 1 : 0 : -1, column]
    return plane


def _variance_about_plane(blocks: Float32Array) -> Float64Array:
    """Return the variance of each block (n, h, w) of mean 0 about the plane that fits it best."""
    ramp = np.arange(BLOCK_PX, dtype=np.float32) - np.float32((BLOCK_PX - 1) / 2)
    squares = float((ramp**2).sum()) * BLOCK_PX
    # The two slopes are orthogonal, so each takes its own share of the variance.
    down = (blocks.sum(axis=2) * ramp).sum(axis=1, dtype=np.float64)
    across = (blocks.sum(axis=1) * ramp).sum(axis=1, dtype=np.float64)
    whole = np.einsum("nyx,nyx->n", blocks, blocks, dtype=np.float64)
    variance: Float64Array = (whole - (down**2 + across**2) / squares) / (BLOCK_PX * BLOCK_PX)
    return np.maximum(variance, 0.0)


def _product(a: Float32Array, b: Float32Array) -> Float32Array:
    none = np.empty(0, np.float32)
    product = cv2.gemm(np.ascontiguousarray(a), np.ascontiguousarray(b), 1.0, none, 0.0)
    return product.astype(np.float32, copy=False)


def coefficient_counts() -> Float32Array:
    """Return the number of Fourier coefficients of each bin, float32 (BANDS, DIRECTIONS)."""
    return _tables()[3]


def _at_least_one_block(pixels: UInt8Array) -> UInt8Array:
    missing = [max(0, BLOCK_PX - side) for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    return cv2.copyMakeBorder(pixels, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT_101).astype(
        np.uint8, copy=False
    )


def _blocks_along(side_px: int) -> int:
    """Return the number of blocks along a side; in a small field they overlap by half at most."""
    half_steps = (side_px - BLOCK_PX) // (BLOCK_PX // 2) + 1
    return max(side_px // BLOCK_PX, min(SMALL_BLOCKS, half_steps))


def _corners(height: int, width: int) -> Int64Array:
    """Return the rows and columns at which the blocks of a field begin, int64 (n, 2)."""
    ys, xs = (_starts(side, _blocks_along(side)) for side in (height, width))
    return np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)


def _starts(side_px: int, count: int) -> list[int]:
    """Return the first pixels of the blocks along a side: one in each part, or overlapping."""
    if count * BLOCK_PX > side_px:
        return [round(k * (side_px - BLOCK_PX) / (count - 1)) for k in range(count)]
    return [
        min(max(round((k + 0.5) * side_px / count - BLOCK_PX / 2), 0), side_px - BLOCK_PX)
        for k in range(count)
    ]


@lru_cache(maxsize=1)
def _tables() -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Return the constants of `field_spectrum`, all float32.

    Returns:
        The window (BLOCK_PX, BLOCK_PX); the matrix from squared coefficients to the mean of each
        bin (bins, coefficients); the one to the mean of the coarse bands (coefficients, 1); the
        number of coefficients of each bin (BANDS, DIRECTIONS).
    """
    # A Hann window of unit power, so that white noise keeps its variance.
    edge = np.hanning(BLOCK_PX)
    window = np.outer(edge, edge)
    window /= math.sqrt(float((window**2).mean()))
    # Frequency of each number of OpenCV's packed real DFT ("CCS"): real and imaginary parts side
    # by side; those of the first and the last column, which are their own mirror, one below the
    # other.
    y, x = np.mgrid[0:BLOCK_PX, 0:BLOCK_PX]
    ends = (x == 0) | (x == BLOCK_PX - 1)
    fy = np.fft.fftfreq(BLOCK_PX)[np.where(ends, (y + 1) // 2, y)]
    fx = np.fft.rfftfreq(BLOCK_PX)[(x + 1) // 2]
    band = np.digitize(np.hypot(fy, fx), BAND_EDGES) - 1
    # Half of the spectrum determines the other half, its mirror. Four coefficients are real and
    # have no mirror; the others of the end columns belong to two directions.
    alone = ends & ((y == 0) | (y == BLOCK_PX - 1))
    weight = np.where(alone, 1.0, 2.0) / 2
    mirrored = np.where(ends & ~alone, -fy, fy)
    # Each number counts in the bin of its band and direction, and in that of its mirror.
    sector = np.pi / DIRECTIONS
    binning = np.zeros((BANDS * DIRECTIONS, band.size), np.float32)
    count = np.zeros((BANDS, DIRECTIONS), np.float32)
    for f in (fy, mirrored):
        direction = np.floor(np.mod(np.arctan2(f, fx) + sector / 2, np.pi) / sector).astype(int)
        for b, d in np.ndindex(BANDS, DIRECTIONS):
            inside = (band == b) & (direction % DIRECTIONS == d)
            count[b, d] += inside.sum() / 2
            binning[b * DIRECTIONS + d] += (inside * weight).ravel()
    binning /= np.maximum(count.reshape(-1, 1), 1)
    coarse = np.zeros_like(count)
    coarse[COARSE_BANDS] = count[COARSE_BANDS] / count[COARSE_BANDS].sum()
    coarse_binning = binning.T @ coarse.reshape(-1, 1)
    return window.astype(np.float32), binning, coarse_binning.astype(np.float32), count
