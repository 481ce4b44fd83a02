"""How the contrast of a field is spread over fineness and direction, from blocks of tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float32Array, UInt8Array

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


def tissue_blocks(pixels: UInt8Array, tissue: TissueTest) -> Blocks:
    """Return blocks of a regular lattice over the field that show tissue.

    Where the lattice misses what little tissue there is, every block of the field is asked.

    Args:
        pixels: RGB uint8 (h, w, 3).
        tissue: Its share per block is compared with MIN_BLOCK_SHARE.
    """
    pixels = _at_least_one_block(pixels)
    rows, columns = (_blocks_along(side) for side in pixels.shape[:2])
    thinner = max(1.0, math.sqrt(rows * columns / MAX_BLOCKS))
    lattices = [(max(1, int(rows / thinner)), max(1, int(columns / thinner)))]
    if lattices[0] != (rows, columns):
        lattices.append((rows, columns))
    looked_at = 0
    for lattice in lattices:
        corners = _corners(pixels.shape[0], pixels.shape[1], *lattice)
        found: list[UInt8Array] = []
        for first in range(0, len(corners), MAX_BLOCKS):
            some = corners[first : first + MAX_BLOCKS]
            looked_at += len(some)
            found.extend(_showing_tissue(pixels, some, tissue))
            if len(found) >= MAX_BLOCKS:
                break
        if found:
            return Blocks(np.stack(found[:MAX_BLOCKS]), looked_at)
    return Blocks(np.empty((0, BLOCK_PX, BLOCK_PX), np.uint8), looked_at)


def _showing_tissue(
    pixels: UInt8Array, corners: list[tuple[int, int]], tissue: TissueTest
) -> UInt8Array:
    """Return those of the blocks that show tissue, in grey; all are tested at once."""
    blocks = np.empty((len(corners), BLOCK_PX, BLOCK_PX, 3), np.uint8)
    for row, (y, x) in enumerate(corners):
        blocks[row] = pixels[y : y + BLOCK_PX, x : x + BLOCK_PX]
    # One picture, block under block: a call for each would cost more than its work.
    tall = blocks.reshape(-1, BLOCK_PX, 3)
    mask = tissue.mask(tall).reshape(len(corners), -1)
    shares = np.count_nonzero(mask, axis=1) / mask.shape[1]
    grey = np.asarray(cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY), np.uint8)
    shown: UInt8Array = grey.reshape(-1, BLOCK_PX, BLOCK_PX)[shares >= MIN_BLOCK_SHARE]
    return shown


def field_spectrum(blocks: Blocks) -> FieldSpectrum | None:
    """Return the mean spectrum of the more textured half of the blocks; None without a block."""
    if not len(blocks):
        return None
    deviations = np.array([cv2.meanStdDev(block)[1][0, 0] for block in blocks.grey])
    count = max(1, round(len(blocks) * TEXTURED_SHARE))
    richest = np.sort(np.argsort(-deviations, kind="stable")[:count])
    window, sorter, coarse_sorter, _ = _tables()
    half = np.empty((count, BLOCK_PX, BLOCK_PX // 2 + 1), np.float32)
    for row, k in enumerate(richest):
        block = blocks.grey[k].astype(np.float32)
        block -= block.mean()
        block *= window
        found = cv2.dft(block, flags=cv2.DFT_COMPLEX_OUTPUT)[:, : BLOCK_PX // 2 + 1]
        found *= found
        np.add(found[..., 0], found[..., 1], out=half[row])
    flat = half.reshape(count, -1)
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


def _corners(height: int, width: int, rows: int, columns: int) -> list[tuple[int, int]]:
    return [(y, x) for y in _starts(height, rows) for x in _starts(width, columns)]


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
    fy = np.fft.fftfreq(BLOCK_PX)[:, None]
    fx = np.fft.rfftfreq(BLOCK_PX)[None]
    band = np.digitize(np.hypot(fy, fx), EDGES) - 1
    sector = np.pi / DIRECTIONS
    direction = np.floor(np.mod(np.arctan2(fy, fx) + sector / 2, np.pi) / sector).astype(int)
    # Half of the spectrum stands for all of it: a real picture's other half is its mirror.
    weight = np.full(band.shape, 2.0)
    weight[:, [0, -1]] = 1.0
    sorter = np.zeros((BANDS * DIRECTIONS, band.size), np.float32)
    count = np.zeros((BANDS, DIRECTIONS), np.float32)
    for b in range(BANDS):
        for d in range(DIRECTIONS):
            inside = (band == b) & (direction % DIRECTIONS == d)
            count[b, d] = weight[inside].sum()
            if count[b, d]:
                sorter[b * DIRECTIONS + d] = (inside * weight).ravel() / count[b, d]
    coarse = np.zeros_like(count)
    coarse[COARSE] = count[COARSE] / count[COARSE].sum()
    coarse_sorter = sorter.T @ coarse.reshape(-1, 1)
    return window.astype(np.float32), sorter, coarse_sorter.astype(np.float32), count
