"""The tissue test: a pixel against the colour of empty glass, for tiles, parts and fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_mil.types import UInt8Array

THINNING = 8
"""Rows and columns between the pixels that are tested first; they find most tissue at once."""

WHITE = (255.0, 255.0, 255.0)
"""Brightest colour of glass, RGB."""


@dataclass(frozen=True, slots=True)
class TissueTest:
    """The numbers of the test, fixed before the first field.

    A pixel is tissue when one of its channels is at least `min_difference` darker than the
    background, and a cell shows tissue when at least `min_share` of its pixels is.

    Only darkness counts, channel by channel, because eosin absorbs green, haematoxylin red, and
    Giemsa stain of blood blue and green. Measured against (240, 240, 240) with 25 levels: bare
    glass has a share of 0.01 at most (`gate_negatives`), mucus 0.72 and more, fat 0.25 and more
    (`crc_he`: the walls of its cells), a sparse bone field 0.05 (`osteosarcoma_he`), blood smears
    0.25 and more. Of the 391 cells of `cmu1_small_region.svs` 190 have a share of 0.05 or more at
    25 and at 30 levels, 192 at 20. A share of 0.05 keeps cells with a rim of tissue and drops
    dust.

    Attributes:
        background: Colour of empty glass, RGB 0 to 255.
        min_difference: Grey levels below the background from which a pixel is tissue.
        min_share: Share of tissue pixels from which a cell shows tissue, 0 to 1.
    """

    background: tuple[float, ...] = (240.0, 240.0, 240.0)
    min_difference: float = 25.0
    min_share: float = 0.05

    def share(self, pixels: UInt8Array) -> float:
        """Return the share of tissue pixels of an RGB uint8 image (h, w, 3), 0 to 1."""
        return self.count(pixels) / int(pixels.shape[0] * pixels.shape[1])

    def count(self, pixels: UInt8Array) -> int:
        """Return the number of tissue pixels of an RGB uint8 image (h, w, 3)."""
        area = int(pixels.shape[0] * pixels.shape[1])
        return area - int(cv2.countNonZero(self._glass(pixels)))

    def mask(self, pixels: UInt8Array) -> UInt8Array:
        """Return the tissue pixels of an RGB uint8 image (h, w, 3): uint8 (h, w), 255 or 0."""
        return cv2.bitwise_not(self._glass(pixels)).astype(np.uint8, copy=False)

    def is_surely_glass(self, pixels: UInt8Array) -> bool:
        """Say whether a cell's camera pixels (h, w, 3) show glass whatever the resampling.

        True where no pixel is tissue: then no average of pixels is tissue either.
        """
        if self.min_share <= 0:
            return False
        height, width = (-(-side // THINNING) for side in pixels.shape[:2])
        thinned = np.asarray(
            cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
        )
        return not self.count(thinned) and not self.count(pixels)

    def _glass(self, pixels: UInt8Array) -> UInt8Array:
        lowest = _lowest_glass(self.background, self.min_difference)
        return cv2.inRange(pixels, lowest, WHITE).astype(np.uint8, copy=False)


def tissue_share(pixels: UInt8Array, background: tuple[float, ...], min_difference: float) -> float:
    """Return `TissueTest.share` of an image."""
    return TissueTest(background, min_difference).share(pixels)


@lru_cache(maxsize=64)
def _lowest_glass(background: tuple[float, ...], min_difference: float) -> tuple[float, ...]:
    # inRange includes its ends: glass begins one level above the brightest tissue.
    return tuple(float(math.floor(level - min_difference) + 1) for level in background)
