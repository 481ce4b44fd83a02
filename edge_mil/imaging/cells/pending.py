"""A cell that waits for the rest of its pixels, and the parts that it has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_mil.imaging.cells.replacement import ViewSharpness
from edge_mil.imaging.grid import Cell
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import UInt8Array

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CellPart:
    """Pixels of a cell that is not complete yet, as one field gave them.

    Attributes:
        i: Column of the cell.
        j: Row of the cell.
        x: Column of the part's left edge within the cell's box.
        y: Row of the part's top edge within the cell's box.
        pixels: RGB uint8, shape (h, w, 3), a copy.
        sharpness: Of these pixels in their field; NaN where it was not judged.
        mask: Which of the pixels the camera saw, bool (h, w); None: all.
        tissue_px: How many of the pixels are tissue, where that was counted; else None.
    """

    i: int
    j: int
    x: int
    y: int
    pixels: UInt8Array
    sharpness: float = math.nan
    mask: BoolArray | None = None
    tissue_px: int | None = None

    def seen(self) -> ViewSharpness:
        """Return how sharply this part of the cell was seen."""
        height, width = self.pixels.shape[:2]
        return ViewSharpness(self.x, self.y, width, height, self.sharpness)

    def to_bytes(self) -> bytes | memoryview:
        """Return the pixels row by row, and behind them the mask as bits where there is one.

        Without a mask they are the part's own, not copied.
        """
        pixels = np.ascontiguousarray(self.pixels).data.cast("B")
        return pixels if self.mask is None else bytes(pixels) + np.packbits(self.mask).tobytes()

    @staticmethod
    def from_bytes(
        cell: Cell,
        box: tuple[int, int, int, int],
        data: bytes | memoryview,
        sharpness: float = math.nan,
    ) -> CellPart:
        """Read what `to_bytes` wrote.

        Args:
            cell: The cell (i, j).
            box: x, y, width and height within the cell's box.
            data: The bytes, which it goes on using.
            sharpness: As it was.
        """
        x, y, width, height = box
        area = width * height
        pixels = np.frombuffer(data, np.uint8, 3 * area).reshape(height, width, 3)
        bits = np.frombuffer(data, np.uint8, offset=3 * area)
        mask = np.unpackbits(bits, count=area).reshape(height, width).astype(np.bool_)
        return CellPart(*cell, x, y, pixels, sharpness, mask if len(bits) else None)


@dataclass(slots=True, eq=False)
class PendingCell:
    """A cell of which some pixels are known.

    The parts are kept as they came and painted together once, at the end: a part that is removed
    then leaves no trace, and a restart that gives the same parts back is at the same state.
    """

    known: BoolArray
    parts: list[tuple[int, CellPart]] = field(default_factory=list)
    known_px: int = 0
    tissue_px: int = 0

    def add(self, sequence: int, part: CellPart, test: TissueTest) -> None:
        """Take the pixels that were not known; the first writer of a pixel stays."""
        height, width = part.pixels.shape[:2]
        known = self.known[part.y : part.y + height, part.x : part.x + width]
        # The first part of a cell is all new, and most parts are first ones.
        if not self.parts and part.mask is None:
            known[...] = True
            self.known_px += height * width
            counted = part.tissue_px
            self.tissue_px += test.count(part.pixels) if counted is None else counted
        else:
            new = ~known if part.mask is None else ~known & part.mask
            self.known_px += int(np.count_nonzero(new))
            tissue = test.mask(part.pixels)
            tissue *= new
            self.tissue_px += int(np.count_nonzero(tissue))
            known |= new
        self.parts.append((sequence, part))

    def paint(self, pixels: UInt8Array) -> None:
        """Lay the parts over the box's pixels; earlier ones cover later ones."""
        for _, part in reversed(self.parts):
            height, width = part.pixels.shape[:2]
            under = pixels[part.y : part.y + height, part.x : part.x + width]
            if part.mask is None:
                under[...] = part.pixels
            else:
                np.copyto(under, part.pixels, where=part.mask[:, :, None])
