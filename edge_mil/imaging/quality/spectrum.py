"""How the contrast of a field is spread over fineness and direction, from blocks of tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float32Array, Int64Array, UInt8Array

BLOCK_PX = 64
"""Side of a block: its spectrum begins at 1/64 cycle per pixel, where a disc of confusion of 12
pixels still lets contrast through."""

MAX_BLOCKS = 72
"""Blocks looked at in one field: a large field is sampled, not covered, at 40 us each."""

EDGES = (0.02, 0.03, 0.045, 0.0625, 0.09, 0.125, 0.18, 0.25, 0.355, 0.5, 0.72)
"""Ends of the bands, cycles per pixel: half an octave each. The last holds the corners of the
spectrum, which no lens fills: what is found there is the sensor's noise."""

BANDS = len(EDGES) - 1
DIRECTIONS = 8
"""Sectors of 22.5 degrees each."""

SMALL_BLOCKS = 4
"""Blocks along a side of a small field, where they overlap if need be."""

THIN_SMALL, THIN_LARGE, LARGE_PX = 4, 8, 2_000_000
"""Every fourth pixel is asked for tissue, in a field of more than two million every eighth."""

MIN_BLOCK_SHARE = 0.05
"""Share of tissue pixels from which a block is looked at."""

TEXTURED_SHARE = 0.5
"""Share of the tissue blocks that count: the richer half; smooth ones say little about focus."""


EVENING = 0.5
"""Power by which a block's coarse contrast weighs it down: one edge of the tissue, with its one
direction, must not stand for the whole field (fibres of bone beside glass looked moved)."""

COARSE = slice(1, 4)
"""Bands of that contrast."""

LEAST_COARSE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class FieldSpectrum:
    """The mean spectrum of a field's textured tissue.

    Attributes:
        power: Weighted mean power of a coefficient, grey levels squared (white noise of
            deviation s gives s^2), by band and direction, float32 (BANDS, DIRECTIONS).
        blocks: How many blocks it is the mean of.
        deviation: Standard deviation of grey levels in those blocks, their mean.
    """

    power: Float32Array
    blocks: int
    deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The tissue blocks of a field, in grey.

    Attributes:
        grey: uint8 (n, BLOCK_PX, BLOCK_PX).
        looked_at: How many blocks were tested for tissue.
    """

    grey: UInt8Array
    looked_at: int

    def __len__(self) -> int:
        return len(self.grey)


def tissue_blocks(pixels: UInt8Array, tissue: TissueTest, gray: UInt8Array | None = None) -> Blocks:
    """Return blocks of the field that show tissue, spread over all that do.

    Args:
        pixels: RGB uint8 (h, w, 3).
        tissue: Its share per block, on thinned pixels, is compared with MIN_BLOCK_SHARE.
        gray: The field in grey, where that has been made already.
    """
    pixels = _at_least_one_block(pixels)
    corners = _corners(pixels.shape[0], pixels.shape[1])
    step = THIN_LARGE if pixels.shape[0] * pixels.shape[1] > LARGE_PX else THIN_SMALL
    mask = tissue.mask(np.ascontiguousarray(pixels[::step, ::step]))
    counts = cv2.integral(cv2.threshold(mask, 0, 1, cv2.THRESH_BINARY)[1])
    y0, x0 = (corners // step).T
    y1, x1 = ((corners + BLOCK_PX) // step).T
    found = counts[y1, x1] - counts[y0, x1] - counts[y1, x0] + counts[y0, x0]
    full = np.flatnonzero(found >= MIN_BLOCK_SHARE * (y1 - y0) * (x1 - x0))
    chosen = full[np.linspace(0, len(full) - 1, min(len(full), MAX_BLOCKS)).astype(int)]
    grey = np.empty((len(chosen), BLOCK_PX, BLOCK_PX), np.uint8)
    for row, (y, x) in enumerate(corners[chosen]):
        block = np.s_[y : y + BLOCK_PX, x : x + BLOCK_PX]
        if gray is not None and gray.shape == pixels.shape[:2]:
            grey[row] = gray[block]
        else:
            cv2.cvtColor(pixels[block], cv2.COLOR_RGB2GRAY, dst=grey[row])
    return Blocks(grey, len(corners))


def field_spectrum(blocks: Blocks) -> FieldSpectrum | None:
    """Return the mean spectrum of the more textured half of the blocks; None without a block."""
    if not len(blocks):
        return None
    deviations = np.array([cv2.meanStdDev(block)[1][0, 0] for block in blocks.grey])
    count = max(1, round(len(blocks) * TEXTURED_SHARE))
    richest = np.sort(np.argsort(-deviations, kind="stable")[:count])
    window, sorter, coarse_sorter, _ = _tables()
    rich = blocks.grey[richest].astype(np.float32)
    rich -= rich.mean(axis=(1, 2), keepdims=True)
    rich *= window
    for block in rich:
        cv2.dft(block, dst=block)
    rich *= rich
    flat = rich.reshape(count, -1)
    flat /= BLOCK_PX * BLOCK_PX
    # OpenCV multiplies here, not NumPy: BLAS would wake its threads for a millisecond's work, and
    # wait for them where the processor is busy. Blocks are averaged first, sorted into bins after.
    coarse = _product(flat, coarse_sorter).ravel()
    weights = (coarse + LEAST_COARSE) ** -EVENING
    mean = _product(sorter, _product((weights / weights.sum())[None], flat).T)
    return FieldSpectrum(
        mean.reshape(BANDS, DIRECTIONS),
        count,
        float(deviations[richest].mean()),
    )


def _product(a: Float32Array, b: Float32Array) -> Float32Array:
    none = np.empty(0, np.float32)
    product = cv2.gemm(np.ascontiguousarray(a), np.ascontiguousarray(b), 1.0, none, 0.0)
    return product.astype(np.float32, copy=False)


def coefficients() -> Float32Array:
    """Return how many Fourier coefficients each band and direction holds (BANDS, DIRECTIONS)."""
    return _tables()[3]


def _at_least_one_block(pixels: UInt8Array) -> UInt8Array:
    missing = [max(0, BLOCK_PX - side) for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    return cv2.copyMakeBorder(pixels, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT_101).astype(
        np.uint8, copy=False
    )


def _blocks_along(side_px: int) -> int:
    """Return how many blocks lie along a side: in a small field they overlap by half at most."""
    half_steps = (side_px - BLOCK_PX) // (BLOCK_PX // 2) + 1
    return max(side_px // BLOCK_PX, min(SMALL_BLOCKS, half_steps))


def _corners(height: int, width: int) -> Int64Array:
    """Return the rows and columns (n, 2) at which the blocks of a field begin."""
    ys, xs = (_starts(side, _blocks_along(side)) for side in (height, width))
    return np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)


def _starts(side_px: int, count: int) -> list[int]:
    """Return where the blocks along a side begin: spread over it, or over all of it if tight."""
    if count * BLOCK_PX > side_px:
        return [round(k * (side_px - BLOCK_PX) / (count - 1)) for k in range(count)]
    return [
        min(max(round((k + 0.5) * side_px / count - BLOCK_PX / 2), 0), side_px - BLOCK_PX)
        for k in range(count)
    ]


@lru_cache(maxsize=1)
def _tables() -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Return the window, what sorts coefficients into bins, and what each bin holds.

    The second matrix gives the mean of the coarse bands at once, (coefficients, 1).
    """
    edge = np.hanning(BLOCK_PX)
    window = np.outer(edge, edge)
    window /= math.sqrt(float((window**2).mean()))
    # Where OpenCV's packed transform holds what: real and imaginary parts side by side; those of
    # the first and the last column, whose halves mirror each other, one below the other.
    y, x = np.mgrid[0:BLOCK_PX, 0:BLOCK_PX]
    ends = (x == 0) | (x == BLOCK_PX - 1)
    fy = np.fft.fftfreq(BLOCK_PX)[np.where(ends, (y + 1) // 2, y)]
    fx = np.fft.rfftfreq(BLOCK_PX)[(x + 1) // 2]
    band = np.digitize(np.hypot(fy, fx), EDGES) - 1
    # Half of the spectrum stands for all of it: a real picture's other half is its mirror. Four
    # coefficients are real and have none; others of the ends stand for two directions.
    alone = ends & ((y == 0) | (y == BLOCK_PX - 1))
    weight = np.where(alone, 1.0, 2.0) / 2
    mirrored = np.where(ends & ~alone, -fy, fy)
    sector = np.pi / DIRECTIONS
    sorter = np.zeros((BANDS * DIRECTIONS, band.size), np.float32)
    count = np.zeros((BANDS, DIRECTIONS), np.float32)
    for f in (fy, mirrored):
        direction = np.floor(np.mod(np.arctan2(f, fx) + sector / 2, np.pi) / sector).astype(int)
        for b, d in np.ndindex(BANDS, DIRECTIONS):
            inside = (band == b) & (direction % DIRECTIONS == d)
            count[b, d] += inside.sum() / 2
            sorter[b * DIRECTIONS + d] += (inside * weight).ravel()
    sorter /= np.maximum(count.reshape(-1, 1), 1)
    coarse = np.zeros_like(count)
    coarse[COARSE] = count[COARSE] / count[COARSE].sum()
    coarse_sorter = sorter.T @ coarse.reshape(-1, 1)
    return window.astype(np.float32), sorter, coarse_sorter.astype(np.float32), count
