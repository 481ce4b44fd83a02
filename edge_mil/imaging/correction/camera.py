"""Bring the tiles of a camera to the colours and the sharpness of the scanner of a model.

What is applied was measured on pairs of a camera's fields and a scan of the same slide
(`edge_mil.calibration.passport`). It changes a tile by its own pixels only, so that a live score
equals that of the batch.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import CalibrationError
from edge_mil.types import Float32Array, Float64Array, UInt8Array

LEVELS = 256
FULL = 255.0
NONE, CURVE_MATRIX, QUADRATIC = "none", "curve-matrix", "quadratic"
KINDS = (NONE, CURVE_MATRIX, QUADRATIC)
MATRIX_TERMS, QUADRATIC_TERMS = 4, 10
"""Red, green, blue and 1; the same with the six products of two channels."""
MAX_WEIGHT = 100.0
"""Largest coefficient that is believed: pixels are scaled to 1, and a map of colours has 0 to 3."""
MAX_GAIN = 4.0
"""Largest gain of a frequency: beyond it the noise of 8 bits is amplified to several levels."""
MIN_GAINS, MAX_GAINS = 2, 64
KERNEL_PX = 15
"""Side of the filter. A gain with 16 knots is smooth, so that its kernel ends within 7 pixels."""
UNCHANGED = 1e-6


@dataclass(frozen=True, slots=True)
class ColourMap:
    """A map from the camera's colours to the scanner's.

    Pixels are scaled to 0 to 1. `curve-matrix`: y = out_c(M [g_c(r), g_c(g), g_c(b), 1]) with
    monotone tables g and out. `quadratic`: y = Q [r, g, b, 1, rr, gg, bb, rg, gb, br].

    Attributes:
        kind: One of KINDS.
        weights: M or Q by rows, 3 x 4 or 3 x 10 numbers; empty for `none`.
        before: The tables g of red, green and blue, one after the other, at equal steps from 0 to
            1; empty: none.
        after: The tables `out`, likewise.

    Raises:
        CalibrationError: The numbers are of another count, not finite, too large or not monotone.

    Source:
        Camera characterisation by polynomial regression: Hong, Luo and Rhodes, Color Res. Appl.
        26:76, 2001.
    """

    kind: str = NONE
    weights: tuple[float, ...] = ()
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers, which are read from a file."""
        terms = {NONE: 0, CURVE_MATRIX: MATRIX_TERMS, QUADRATIC: QUADRATIC_TERMS}.get(self.kind)
        tables = (self.before, self.after)
        numbers = (*self.weights, *self.before, *self.after)
        known = terms is not None and len(self.weights) == 3 * terms
        even = all(len(table) % 3 == 0 and len(table) <= 3 * LEVELS for table in tables)
        if not known or not even or not all(math.isfinite(x) for x in numbers):
            raise CalibrationError(
                f"A colour map of kind {self.kind[:20]!r} has impossible numbers."
            )
        if max(map(abs, numbers), default=0.0) > MAX_WEIGHT:
            raise CalibrationError(
                "A colour map has numbers too large to be one; measure it again."
            )
        for table in tables:
            if table and float(np.diff(np.reshape(table, (3, -1)), axis=1).min()) < 0:
                raise CalibrationError("A curve of a colour map falls; measure it again.")

    def apply(self, pixels: UInt8Array | Float32Array) -> Float32Array:
        """Map colours.

        Args:
            pixels: RGB, shape (h, w, 3), uint8, or float32 from 0 to 255.

        Returns:
            float32 (h, w, 3), 0 to 255, not rounded.
        """
        scaled = np.asarray(pixels, np.float32) * np.float32(1 / FULL)
        if self.kind == NONE:
            return np.asarray(pixels, np.float32)
        scaled = _through_tables(scaled, self.before)
        weights = np.asarray(self.weights, np.float32).reshape(3, -1)
        if self.kind == QUADRATIC:
            linear, offset, products = weights[:, :3], weights[:, 3:4], weights[:, 4:]
            mapped = cv2.transform(scaled, np.hstack([linear, offset]))
            squares = np.ascontiguousarray(products[:, :3])
            mapped = cv2.add(mapped, cv2.transform(scaled * scaled, squares))
            # Red x green, green x blue, blue x red: the neighbour channel is one further on.
            crossed = scaled * scaled[:, :, (1, 2, 0)]
            mapped = cv2.add(mapped, cv2.transform(crossed, np.ascontiguousarray(products[:, 3:])))
        else:
            mapped = _through_tables(np.clip(cv2.transform(scaled, weights), 0, 1), self.after)
        clipped: Float32Array = np.clip(mapped, 0, 1) * np.float32(FULL)
        return clipped


def colour_terms(pixels: Float64Array, kind: str) -> Float64Array:
    """Return what the weights of a map are multiplied with, float64 (n, 4) or (n, 10).

    Args:
        pixels: float64 (n, 3), 0 to 1.
        kind: CURVE_MATRIX or QUADRATIC.
    """
    ones = np.ones((len(pixels), 1))
    if kind == CURVE_MATRIX:
        return np.hstack([pixels, ones])
    return np.hstack([pixels, ones, pixels**2, pixels * pixels[:, (1, 2, 0)]])


@dataclass(frozen=True, slots=True, eq=False)
class CameraCorrection:
    """What is done to every tile of a camera: first colour, then sharpness.

    Attributes:
        colour: The colour map.
        gains: Gain of each spatial frequency, at equal steps from 0 to 0.5 cycles per pixel of the
            tile; constant beyond, in every direction alike, with no change of phase. The first is
            1: the mean of a tile stays. Empty: no filter.

    Raises:
        CalibrationError: A gain is not finite, negative, or above MAX_GAIN.
    """

    colour: ColourMap
    gains: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the gains, which are read from a file."""
        count = len(self.gains)
        possible = all(math.isfinite(g) and 0 <= g <= MAX_GAIN for g in self.gains)
        if not possible or (count and not MIN_GAINS <= count <= MAX_GAINS):
            raise CalibrationError(
                f"The sharpening of a camera has {count} gains outside of 0 to {MAX_GAIN:g}; "
                "measure it again with edge-mil calibrate camera."
            )

    @property
    def changes_nothing(self) -> bool:
        return self.colour.kind == NONE and not self.gains

    def apply(self, tiles: UInt8Array) -> UInt8Array:
        """Correct tiles, each by its own pixels.

        Args:
            tiles: RGB uint8, shape (n, h, w, 3).

        Returns:
            The same shape and type; `tiles` itself where nothing changes.
        """
        if self.changes_nothing:
            return tiles
        out = np.empty_like(tiles)
        for tile, corrected in zip(tiles, out, strict=True):
            levels = self.colour.apply(tile)
            if self.gains:
                levels = filtered(levels, self.gains)
            corrected[...] = np.clip(np.rint(levels), 0, FULL)
        return out


def filtered(levels: Float32Array, gains: tuple[float, ...]) -> Float32Array:
    """Return pixels, float32 (h, w, 3), after a radial gain; the edge is mirrored."""
    kernel = radial_kernel(gains)
    return cv2.filter2D(levels, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101).astype(
        np.float32, copy=False
    )


@functools.lru_cache(maxsize=64)
def radial_kernel(gains: tuple[float, ...]) -> Float32Array:
    """Return the filter of a radial gain, float32 (KERNEL_PX, KERNEL_PX), symmetric, sum 1.

    Source:
        Frequency sampling with a Hamming window (Oppenheim and Schafer, Discrete-Time Signal
        Processing, 7.5): the inverse transform of the wanted response, cut to the kernel's size.
    """
    # 1. The response on a grid much finer than the kernel.
    size = 4 * KERNEL_PX + 1
    frequencies = np.fft.fftfreq(size)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    response = gain_at(radius, gains)
    # 2. Its impulse response around the centre, windowed to the kernel's size.
    impulse = np.fft.fftshift(np.fft.ifft2(response).real)
    middle, half = size // 2, KERNEL_PX // 2
    kernel = impulse[middle - half : middle + half + 1, middle - half : middle + half + 1]
    window = np.hamming(KERNEL_PX + 2)[1:-1]
    kernel = kernel * np.outer(window, window)
    # 3. Sum 1, so that the mean of a tile stays.
    normalised: Float32Array = (kernel / kernel.sum()).astype(np.float32)
    normalised.setflags(write=False)
    return normalised


def gain_at(radius: Float64Array, gains: tuple[float, ...]) -> Float64Array:
    """Return the gain at spatial frequencies, cycles per pixel."""
    knots = np.linspace(0.0, 0.5, len(gains))
    return np.interp(radius, knots, gains)


def noise_gain(gains: tuple[float, ...]) -> float:
    """Return by how much the filter multiplies the deviation of noise without correlation."""
    return float(np.sqrt(np.square(radial_kernel(gains)).sum())) if gains else 1.0


def _through_tables(scaled: Float32Array, tables: tuple[float, ...]) -> Float32Array:
    """Return each channel, 0 to 1, through its table; linear between its entries."""
    if not tables:
        return scaled
    curves = np.reshape(np.asarray(tables, np.float32), (3, -1))
    knots = np.linspace(0, 1, curves.shape[1], dtype=np.float32)
    out = np.empty_like(scaled)
    for channel in range(3):
        out[..., channel] = np.interp(scaled[..., channel], knots, curves[channel])
    return out
