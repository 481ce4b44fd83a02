"""A field as registration sees it: grey, flattened, at the scales that are needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Float64Array, UInt8Array

FINE_PX = 1280
"""Long side of the finest scale at most: whole camera pixels up to here, half ones beyond."""

COARSE_PX = 160
"""Long side at most of the small picture in which every shift is tried."""

SHADING = 0.04
"""Sigma of the blur that is taken off, in long sides: uneven light goes, structure stays."""

FLOOR = 4.0
"""Grey levels of contrast that count as noise: what is fainter is not blown up."""

TEXTURED = 5.0
"""Local contrast of the flattened picture, grey levels, by which a place can be known."""

TEXTURE_SIGMA = 1.5
"""Pixels around a place whose contrast counts."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseLevel:
    """A small picture with every contrast made alike, and what all its overlaps need.

    Attributes:
        pixels: float32 (h, w), mean near 0, local deviation near 1 where there is structure.
        textured: Where there is structure, bool (h, w).
        sums: Integral of `pixels`, float64 (h + 1, w + 1).
        squares: Integral of their squares.
    """

    pixels: Float32Array
    textured: npt.NDArray[np.bool_]
    sums: Float64Array
    squares: Float64Array


@dataclass(slots=True, eq=False)
class RegistrationPyramid:
    """One field in grey, and its smaller and flattened forms, made when first asked for.

    Attributes:
        grey: uint8 (h, w) at `factor` camera pixels per pixel.
        factor: 1, 2, 4, ...
        coarse_px: Long side at most of its smallest form, pixels.
    """

    grey: UInt8Array
    factor: int
    coarse_px: int = COARSE_PX
    _scales: dict[int, UInt8Array] = field(default_factory=dict)
    _flat: dict[int, Float32Array] = field(default_factory=dict)
    _coarse: CoarseLevel | None = None
    _spectra: dict[tuple[int, int], Float32Array] = field(default_factory=dict)

    @staticmethod
    def of(pixels: UInt8Array) -> RegistrationPyramid:
        """Return the picture of a field.

        Args:
            pixels: RGB uint8 (h, w, 3), or grey uint8 (h, w). Of RGB the green channel is taken:
                both of the usual stains absorb it.
        """
        grey = pixels if pixels.ndim == 2 else cv2.extractChannel(pixels, 1)
        factor = 1
        while max(grey.shape) > FINE_PX * factor:
            factor *= 2
        return RegistrationPyramid(_shrunk(np.ascontiguousarray(grey, np.uint8), factor), factor)

    @property
    def steps(self) -> list[int]:
        """Return the scales, camera pixels per pixel, from the coarsest to the finest."""
        factors = [self.factor]
        while max(self.grey.shape) * self.factor > self.coarse_px * factors[-1]:
            factors.append(factors[-1] * 2)
        return factors[::-1]

    def at(self, factor: int) -> UInt8Array:
        """Return the grey picture at `factor` camera pixels per pixel, one of `steps`."""
        if factor == self.factor:
            return self.grey
        found = self._scales.get(factor)
        if found is None:
            found = self._scales[factor] = _shrunk(self.at(factor // 2), 2)
        return found

    def flat(self, factor: int) -> Float32Array:
        """Return the picture without its shading, grey levels around 0, float32 (h, w)."""
        found = self._flat.get(factor)
        if found is None:
            grey = self.at(factor)
            smallest = self.at(self.steps[0])
            light = cv2.GaussianBlur(
                smallest.astype(np.float32), (0, 0), SHADING * max(smallest.shape)
            )
            if light.shape != grey.shape:
                light = cv2.resize(light, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
            flat = cv2.subtract(grey, light, dtype=cv2.CV_32F)
            found = self._flat[factor] = flat.astype(np.float32, copy=False)
        return found

    @property
    def coarse(self) -> CoarseLevel:
        """Return the smallest picture, ready for the search over all shifts."""
        if self._coarse is None:
            self._coarse = _coarse(self.flat(self.steps[0]))
        return self._coarse

    def spectrum(self, size: tuple[int, int]) -> Float32Array:
        """Return the DFT of the smallest picture, padded to `size`, in OpenCV's packed form."""
        found = self._spectra.get(size)
        if found is None:
            pixels = self.coarse.pixels
            padded = np.zeros(size, np.float32)
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            found = self._spectra[size] = cv2.dft(padded).astype(np.float32, copy=False)
        return found

    @property
    def texture(self) -> float:
        """Return the share of the picture that has something to be known by, 0 to 1."""
        return float(self.coarse.textured.mean())

    def at_magnification(self, ratio: float) -> RegistrationPyramid:
        """Return the same view as an objective of `ratio` times the magnification shows it.

        Its smallest form is of the same scale as this picture's.
        """
        height, width = self.grey.shape
        size = (max(8, round(width * ratio)), max(8, round(height * ratio)))
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        grey = np.asarray(cv2.resize(self.grey, size, interpolation=how), np.uint8)
        coarse_px = math.ceil(max(size) * self.factor / self.steps[0])
        return RegistrationPyramid(grey, self.factor, coarse_px)

    def with_coarse(self, coarse_px: int) -> RegistrationPyramid:
        """Return the same picture with a smallest form of another size."""
        return RegistrationPyramid(self.grey, self.factor, coarse_px)


def _shrunk(grey: UInt8Array, factor: int) -> UInt8Array:
    """Return the mean of factor x factor pixels; what is left over at the ends is cut off."""
    if factor == 1:
        return grey
    height, width = max(1, grey.shape[0] // factor), max(1, grey.shape[1] // factor)
    whole = grey[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def _coarse(flat: Float32Array) -> CoarseLevel:
    energy = cv2.multiply(flat, flat)
    wide = cv2.GaussianBlur(energy, (0, 0), SHADING * max(flat.shape))
    pixels = flat / (np.sqrt(wide) + np.float32(FLOOR))
    near = cv2.GaussianBlur(energy, (0, 0), TEXTURE_SIGMA)
    sums, squares = cv2.integral2(pixels, sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    return CoarseLevel(pixels, near > TEXTURED**2, sums, squares)
