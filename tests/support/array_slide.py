"""Pixels in memory as a slide file."""

from __future__ import annotations

from dataclasses import dataclass

from edge_mil.types import UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class ArraySlide:
    """A slide of one level.

    Attributes:
        pixels: RGB uint8 (h, w, 3).
        mpp: Its pixel size, um/px.
    """

    pixels: UInt8Array
    mpp: float

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.pixels.shape[0])

    def read(self, x: int, y: int, width_px: int, height_px: int) -> UInt8Array:
        """Return a part of it."""
        return self.pixels[y : y + height_px, x : x + width_px]

    def read_whole(self, long_side_px: int) -> tuple[UInt8Array, float]:
        """Return it thinned, and its pixels per pixel of that."""
        step = max(1, max(self.pixels.shape) // long_side_px)
        return self.pixels[::step, ::step], float(step)
