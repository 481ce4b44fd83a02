"""Stain normalisation: bring the colours of one slide to those that a model was trained on.

A profile describes the colours of a slide, and a transform goes from one profile to another. Both
are fixed before the first field, and a tile is changed by its own pixels alone, so that the live
score equals the batch score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import CalibrationError
from edge_mil.types import Float32Array, Float64Array, UInt8Array

METHODS = ("macenko", "reinhard")

MIN_DENSITY = 0.15
"""Optical density (natural logarithm) below which a pixel is glass; Macenko et al. use 0.15."""

ANGLE_PERCENTILE = 1.0
"""The stains are the extreme directions without the outermost hundredth (Macenko et al.)."""

REACH_PERCENTILE = 99.0
"""Percentile of a stain's amount that counts as the strongest staining (Macenko et al.)."""

MIN_PIXELS = 1000
"""Tissue pixels that a profile needs."""

MIN_ANGLE_DEGREES = 3.0
"""Angle between two stains below which they are one: their amounts would be noise."""

MIN_LAB_DEVIATION = 0.1
"""Standard deviation in L*a*b* below which all tissue has one colour."""

SAMPLE_PIXELS = 200_000
"""Tissue pixels that a profile is fitted to; more change it by less than a grey level."""

LEVELS = 256
MIN_LEVEL = 0.5
"""Level that 0 counts as, whose logarithm would be infinite."""

LAB_SCALE = np.array([2.55, 1.0, 1.0])
LAB_ZERO = np.array([0.0, 128.0, 128.0])
"""OpenCV's packing of L*a*b* into 8 bits: (value + zero) x scale."""


@dataclass(frozen=True, slots=True)
class StainProfile:
    """The colours of a stained slide.

    Attributes:
        background: Colour of empty glass, RGB 0 to 255.
        mean: Mean of the tissue in CIE L*a*b*, three numbers.
        deviation: Standard deviation of the same.
        stains: The two stains' optical densities in red, green and blue, as unit vectors, first
            the one that absorbs more red (haematoxylin): six numbers; empty where the tissue shows
            only one stain.
        reach: 99th percentile of each stain's amount; empty where `stains` is.

    Raises:
        CalibrationError: There are too few or too many numbers, or one is impossible.
    """

    background: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    stains: tuple[float, ...] = ()
    reach: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (*self.background, *self.mean, *self.deviation, *self.stains, *self.reach)
        sizes = len(self.background), len(self.mean), len(self.deviation)
        if (
            sizes != (3, 3, 3)
            or (len(self.stains), len(self.reach)) not in ((0, 0), (6, 2))
            or not all(map(math.isfinite, numbers))
            or min(*self.background, *self.deviation, *(self.reach or (1.0,))) <= 0
        ):
            raise CalibrationError(
                "A stain profile holds numbers that no slide has; measure it again with edge-mil "
                "calibrate stain."
            )


def fit_profile(pixels: UInt8Array, background: tuple[float, ...]) -> StainProfile:
    """Measure the colours of stained tissue.

    Args:
        pixels: RGB uint8, shape (..., 3), of many fields; glass among them is ignored.
        background: Colour of empty glass, RGB 0 to 255.

    Raises:
        CalibrationError: There is too little tissue, or all of it has one colour.

    Source:
        Macenko et al., "A method for normalizing histology slides for quantitative analysis" (IEEE
        ISBI 2009); Reinhard et al., "Color transfer between images" (IEEE Comput. Graph. Appl.
        21(5):34, 2001), in L*a*b*.
    """
    # Stained pixels: dense enough in every channel; of very many an even sample.
    flat = pixels.reshape(-1, 3)
    density = _density(background)[flat, np.arange(3)]
    stained = np.flatnonzero((density > MIN_DENSITY).all(axis=1))
    if len(stained) < MIN_PIXELS:
        raise CalibrationError(
            f"The images show {len(stained)} pixels of stained tissue and {MIN_PIXELS} are "
            "needed; scan places with tissue, in focus.",
            pixels=len(stained),
        )
    if len(stained) > SAMPLE_PIXELS:
        sample = np.linspace(0, len(stained) - 1, SAMPLE_PIXELS)
        stained = stained[sample.round().astype(np.int64)]
    tissue, density = flat[stained], density[stained]
    # Reinhard's moments, then Macenko's stains.
    lab = _to_lab(tissue[None])[0]
    deviation = lab.std(axis=0)
    if float(deviation.min()) < MIN_LAB_DEVIATION:
        raise CalibrationError("All tissue has one colour; scan more places, in focus.")
    stains, reach = _two_stains(density)
    return StainProfile(
        background=tuple(float(level) for level in background),
        mean=tuple(float(x) for x in lab.mean(axis=0)),
        deviation=tuple(float(x) for x in deviation),
        stains=stains,
        reach=reach,
    )


class StainTransform:
    """Transforms tiles from one stain profile to another; a pure function of each tile.

    Macenko: optical density is linear in the amount of stain (Beer-Lambert), so unmixing by the
    source's stains, scaling to the target's reach and mixing by the target's stains is one 3 x 3
    matrix between a table of logarithms and an exponential. Reinhard: each channel of L*a*b* gets
    the target's mean and standard deviation. Empty glass becomes the target's glass under Macenko;
    under Reinhard it is shifted with the rest.
    """

    def __init__(self, method: str, source: StainProfile, target: StainProfile) -> None:
        """Prepare the tables.

        Args:
            method: One of METHODS.
            source: Colours of the session's slide.
            target: Colours of the bundle's training slides.

        Raises:
            CalibrationError: The method is unknown, or a profile has no two stains for Macenko's.
        """
        if method not in METHODS:
            raise CalibrationError(
                f"There is no stain normalisation {method!r}; use {' or '.join(METHODS)}."
            )
        self.method, self.source, self.target = method, source, target
        if method == "reinhard":
            # One table of 8-bit levels per channel: unpack, shift and scale, pack.
            gain = np.asarray(target.deviation) / np.asarray(source.deviation)
            shift = np.asarray(target.mean) - gain * np.asarray(source.mean)
            levels = np.arange(LEVELS, dtype=np.float64)[:, None] / LAB_SCALE - LAB_ZERO
            moved = ((gain * levels + shift) + LAB_ZERO) * LAB_SCALE
            self._table = np.clip(np.rint(moved), 0, 255).astype(np.uint8)[None]
            return
        for what, profile in (("slide", source), ("bundle's reference", target)):
            if not profile.stains:
                raise CalibrationError(
                    f"The {what} shows only one stain, so Macenko's normalisation has nothing to "
                    "separate; scan places with both stains, or use a bundle with Reinhard's."
                )
        # Mixing matrix (channels, stains) of the target, scaled from the source's reach to its own,
        # times the pseudo-inverse of the source's.
        mixing = np.asarray(target.stains).reshape(2, 3).T * (
            np.asarray(target.reach) / np.asarray(source.reach)
        )
        unmixing = np.linalg.pinv(np.asarray(source.stains).reshape(2, 3).T)
        # The light that is left is exp(log white - density).
        white = np.log(np.asarray(target.background))
        self._matrix = np.column_stack([-mixing @ unmixing, white]).astype(np.float32)
        # cv2.LUT wants one row of 256 entries with a table for each channel.
        self._densities = _density(source.background).astype(np.float32)[None]

    def apply(self, tiles: UInt8Array) -> UInt8Array:
        """Normalise tiles, each by itself.

        Args:
            tiles: RGB uint8, shape (n, h, w, 3).

        Returns:
            The same shape; a new array.
        """
        out = np.empty_like(tiles)
        normalise = self._reinhard if self.method == "reinhard" else self._macenko
        for tile, result in zip(tiles, out, strict=True):
            result[...] = normalise(tile)
        return out

    def _macenko(self, tile: UInt8Array) -> UInt8Array:
        density = cv2.LUT(tile, self._densities)
        levels = cv2.exp(cv2.transform(density, self._matrix))
        return cv2.convertScaleAbs(levels).astype(np.uint8, copy=False)

    def _reinhard(self, tile: UInt8Array) -> UInt8Array:
        # 8-bit L*a*b*, as StainTools does: 0.6 ms for a tile of 224 px, in float32 2.4 ms.
        lab = cv2.LUT(cv2.cvtColor(tile, cv2.COLOR_RGB2Lab), self._table)
        return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB).astype(np.uint8, copy=False)


def _two_stains(density: Float64Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the stains of tissue and their reach (Macenko et al., 2009).

    Args:
        density: Optical density of stained pixels, float64 (n, 3).

    Returns:
        `StainProfile.stains` and `reach`; both empty where the tissue shows only one stain.
    """
    # The plane of the two largest principal components of the densities.
    _, directions = np.linalg.eigh(np.cov(density.T))
    plane = directions[:, [2, 1]]
    # An eigenvector has no sign; densities are positive.
    plane *= np.where(plane[0] < 0, -1.0, 1.0)
    # The extreme angles within the plane are the stains.
    along = density @ plane
    angles = np.arctan2(along[:, 1], along[:, 0])
    low, high = np.percentile(angles, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
    if math.degrees(high - low) < MIN_ANGLE_DEGREES:
        return (), ()
    ends = [plane @ np.array([math.cos(a), math.sin(a)]) for a in (low, high)]
    first, second = sorted(ends, key=lambda stain: -float(stain[0]))
    stains = np.stack([first, second])
    # Amount of each stain in each pixel, by least squares.
    amounts = density @ np.linalg.pinv(stains)
    reach = np.percentile(amounts, REACH_PERCENTILE, axis=0)
    if float(reach.min()) <= 0:
        return (), ()
    return tuple(float(x) for x in stains.ravel()), tuple(float(x) for x in reach)


def _density(background: tuple[float, ...]) -> Float64Array:
    """Return the optical density of each level of each channel, float64 (256, 3), 0 and more.

    Natural logarithm, as Macenko et al.; a level above the glass has density 0.
    """
    levels = np.maximum(np.arange(LEVELS, dtype=np.float64), MIN_LEVEL)[:, None]
    density = np.log(np.asarray(background, dtype=np.float64)) - np.log(levels)
    positive: Float64Array = np.maximum(density, 0.0)
    return positive


def _to_lab(pixels: UInt8Array) -> Float32Array:
    """Return RGB uint8 (h, w, 3) in CIE L*a*b*, float32, L 0 to 100."""
    scaled: Float32Array = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    return cv2.cvtColor(scaled, cv2.COLOR_RGB2Lab).astype(np.float32, copy=False)
