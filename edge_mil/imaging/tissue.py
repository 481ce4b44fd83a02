"""Tissue or empty glass: one test against a fixed background, for tiles, parts and fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_mil.types import UInt8Array

GLANCE_STEP = 8
"""Rows and columns between the pixels of a first glance, which finds most tissue at once."""

WHITE = (255.0, 255.0, 255.0)


@dataclass(frozen=True, slots=True)
class TissueTest:
    """The numbers of the test, fixed before the first field.

    A pixel is tissue when one of its channels is at least `min_difference` darker than the
    background, and a cell shows tissue when at least `min_share` of its pixels is.

    Darkness alone is asked, per channel, because eosin takes green, haematoxylin red, and blood
    stained by Giemsa blue and green. Against (240, 240, 240) and 25 bare glass measures at most
    0.01 (`gate_negatives`), mucus 0.72 and more, fat 0.25 and more (`crc_he`: the walls of its
    cells), a sparse bone field 0.05 (`osteosarcoma_he`), blood smears 0.25 and more. Of the 391
    cells of `cmu1_small_region.svs` 190 have a share of 0.05 or more at 25 and at 30, 192 at 20.
    A share of 0.05 keeps cells with a rim of tissue and drops dust.

    Attributes:
        background: Colour of empty glass, RGB 0 to 255.
        min_difference: Grey levels.
        min_share: 0 to 1.
    """

    background: tuple[float, ...] = (240.0, 240.0, 240.0)
    min_difference: float = 25.0
    min_share: float = 0.05

    def share(self, pixels: UInt8Array) -> float:
        """Return the share of tissue pixels of an RGB uint8 image (h, w, 3)."""
        return tissue_share(pixels, self.background, self.min_difference)

    def count(self, pixels: UInt8Array) -> int:
        """Return the number of tissue pixels of an RGB uint8 image (h, w, 3)."""
        return tissue_pixels(pixels, self.background, self.min_difference)

    def is_surely_glass(self, pixels: UInt8Array) -> bool:
        """Say whether a cell's camera pixels (h, w, 3) need no tile to be judged as glass.

        So it is where not one of them is tissue: then no average of them is either.
        """
        if self.min_share <= 0:
            return False
        height, width = (-(-side // GLANCE_STEP) for side in pixels.shape[:2])
        thinned = np.asarray(
            cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
        )
        return not self.count(thinned) and not self.count(pixels)

    def mask(self, pixels: UInt8Array) -> UInt8Array:
        """Return which pixels are tissue: uint8 (h, w), 255 or 0."""
        return cv2.bitwise_not(_glass(pixels, self.background, self.min_difference)).astype(
            np.uint8, copy=False
        )


def tissue_share(pixels: UInt8Array, background: tuple[float, ...], min_difference: float) -> float:
    """Return the share of pixels that are at least `min_difference` darker than the background.

    Args:
        pixels: RGB uint8, shape (h, w, 3).
        background: Colour of empty glass, RGB 0 to 255.
        min_difference: Grey levels that one channel must be darker by.

    Returns:
        0 to 1.
    """
    area = int(pixels.shape[0] * pixels.shape[1])
    return tissue_pixels(pixels, background, min_difference) / area


def tissue_pixels(pixels: UInt8Array, background: tuple[float, ...], min_difference: float) -> int:
    """Return how many pixels are at least `min_difference` darker than the background."""
    area = int(pixels.shape[0] * pixels.shape[1])
    return area - int(cv2.countNonZero(_glass(pixels, background, min_difference)))


def _glass(pixels: UInt8Array, background: tuple[float, ...], min_difference: float) -> UInt8Array:
    lowest = _lowest_glass(background, min_difference)
    return cv2.inRange(pixels, lowest, WHITE).astype(np.uint8, copy=False)


@lru_cache(maxsize=64)
def _lowest_glass(background: tuple[float, ...], min_difference: float) -> tuple[float, ...]:
    # inRange includes its ends: glass begins one level above the darkest that is tissue.
    return tuple(float(math.floor(level - min_difference) + 1) for level in background)
