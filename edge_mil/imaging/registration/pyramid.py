"""A field prepared for registration: in grey, flattened, at several scales."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Float64Array, UInt8Array

FINE_PX = 1280
"""Longest side of the finest scale: camera pixels up to here, means of 2 x 2 and more beyond."""

COARSE_PX = 160
"""Longest side of the coarsest scale, at which every shift is tried."""

LIGHT_SIGMA = 0.04
"""Sigma of the blur that is subtracted, in long sides: it removes uneven light, not structure."""

NOISE_LEVELS = 4.0
"""Grey levels that are added to the local contrast: fainter structure is not amplified."""

TEXTURE_LEVELS = 5.0
"""Local contrast, grey levels, from which a place has texture that identifies it."""

TEXTURE_SIGMA_PX = 1.5
"""Sigma of the window of the local contrast, pixels of the coarsest scale."""

MIN_SIDE_PX = 8
"""Shortest side of a field that is shrunk to another magnification."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseLevel:
    """The coarsest scale with local contrast equalised, and its integral images.

    Attributes:
        pixels: float32 (h, w), mean near 0, local deviation near 1 where there is structure.
        textured: Pixels with texture, bool (h, w).
        sums: Integral image of `pixels`, float64 (h + 1, w + 1).
        squares: Integral image of their squares, float64 (h + 1, w + 1).
    """

    pixels: Float32Array
    textured: npt.NDArray[np.bool_]
    sums: Float64Array
    squares: Float64Array


@dataclass(slots=True, eq=False)
class RegistrationPyramid:
    """One field in grey with its coarser and flattened scales, each computed once when needed.

    Attributes:
        grey: uint8 (h, w) at `factor` camera pixels per pixel.
        factor: 1, 2, 4, ...
        coarse_px: Longest side of the coarsest scale, pixels.
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
        """Return the pyramid of a field.

        Args:
            pixels: RGB uint8 (h, w, 3), or grey uint8 (h, w). Of RGB the green channel is used:
                both of the usual stains absorb it.
        """
        grey = pixels if pixels.ndim == 2 else cv2.extractChannel(pixels, 1)
        factor = 1
        while max(grey.shape) > FINE_PX * factor:
            factor *= 2
        return RegistrationPyramid(_shrunk(np.ascontiguousarray(grey, np.uint8), factor), factor)

    @property
    def factors(self) -> list[int]:
        """Camera pixels per pixel of each scale, from the coarsest to the finest."""
        factors = [self.factor]
        while max(self.grey.shape) * self.factor > self.coarse_px * factors[-1]:
            factors.append(factors[-1] * 2)
        return factors[::-1]

    def at(self, factor: int) -> UInt8Array:
        """Return the field in grey, uint8 (h, w), at one of `factors`."""
        if factor == self.factor:
            return self.grey
        scale = self._scales.get(factor)
        if scale is None:
            scale = self._scales[factor] = _shrunk(self.at(factor // 2), 2)
        return scale

    def flat(self, factor: int) -> Float32Array:
        """Return the field without uneven light at one of `factors`: levels around 0, float32."""
        flat = self._flat.get(factor)
        if flat is None:
            grey = self.at(factor)
            # The light is smooth: it is estimated at the coarsest scale and enlarged.
            smallest = self.at(self.factors[0])
            light = cv2.GaussianBlur(
                smallest.astype(np.float32), (0, 0), LIGHT_SIGMA * max(smallest.shape)
            )
            if light.shape != grey.shape:
                light = cv2.resize(light, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
            difference = cv2.subtract(grey, light, dtype=cv2.CV_32F)
            flat = self._flat[factor] = difference.astype(np.float32, copy=False)
        return flat

    @property
    def coarse(self) -> CoarseLevel:
        """The coarsest scale, prepared for the search over all shifts."""
        if self._coarse is None:
            self._coarse = _coarse_level(self.flat(self.factors[0]))
        return self._coarse

    def spectrum(self, size: tuple[int, int]) -> Float32Array:
        """Return the DFT of the coarsest scale, padded to `size`, in OpenCV's packed form."""
        spectrum = self._spectra.get(size)
        if spectrum is None:
            pixels = self.coarse.pixels
            padded = np.zeros(size, np.float32)
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            spectrum = self._spectra[size] = cv2.dft(padded).astype(np.float32, copy=False)
        return spectrum

    @property
    def texture(self) -> float:
        """Share of the field with texture, 0 to 1."""
        return float(self.coarse.textured.mean())

    def at_magnification(self, ratio: float) -> RegistrationPyramid:
        """Return the same view under an objective of `ratio` times the magnification.

        Its coarsest scale has the same factor as this one's.
        """
        height, width = self.grey.shape
        size = (max(MIN_SIDE_PX, round(width * ratio)), max(MIN_SIDE_PX, round(height * ratio)))
        interpolation = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        grey = np.asarray(cv2.resize(self.grey, size, interpolation=interpolation), np.uint8)
        coarse_px = math.ceil(max(size) * self.factor / self.factors[0])
        return RegistrationPyramid(grey, self.factor, coarse_px)

    def with_coarse(self, coarse_px: int) -> RegistrationPyramid:
        """Return the same field with a coarsest scale of another size."""
        return RegistrationPyramid(self.grey, self.factor, coarse_px)


def _shrunk(grey: UInt8Array, factor: int) -> UInt8Array:
    """Return the mean of factor x factor pixels; a remainder at the ends is cut off."""
    if factor == 1:
        return grey
    height, width = max(1, grey.shape[0] // factor), max(1, grey.shape[1] // factor)
    multiple = grey[: height * factor, : width * factor]
    return cv2.resize(multiple, (width, height), interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def _coarse_level(flat: Float32Array) -> CoarseLevel:
    """Equalise the local contrast: divide by the root of the mean square around each pixel."""
    energy = cv2.multiply(flat, flat)
    wide = cv2.GaussianBlur(energy, (0, 0), LIGHT_SIGMA * max(flat.shape))
    pixels = flat / (np.sqrt(wide) + np.float32(NOISE_LEVELS))
    near = cv2.GaussianBlur(energy, (0, 0), TEXTURE_SIGMA_PX)
    sums, squares = cv2.integral2(pixels, sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    return CoarseLevel(pixels, near > TEXTURE_LEVELS**2, sums, squares)
