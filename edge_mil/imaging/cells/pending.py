"""The parts of an incomplete cell, until fields have given all of its pixels."""

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
    """Pixels that one field gave to an incomplete cell.

    Attributes:
        i: Column of the cell.
        j: Row of the cell.
        x: Column of the part's left edge within the cell's box.
        y: Row of the part's top edge within the cell's box.
        pixels: RGB uint8, shape (h, w, 3), a copy.
        sharpness: `box_sharpness` of these pixels in their field; NaN where it was not measured.
        mask: Pixels that the camera saw, bool (h, w); None: all.
        tissue_px: Number of tissue pixels where it was counted; else None.
    """

    i: int
    j: int
    x: int
    y: int
    pixels: UInt8Array
    sharpness: float = math.nan
    mask: BoolArray | None = None
    tissue_px: int | None = None

    def view_sharpness(self) -> ViewSharpness:
        """Return the sharpness of this part with its rectangle within the cell."""
        height, width = self.pixels.shape[:2]
        return ViewSharpness(self.x, self.y, width, height, self.sharpness)

    def to_bytes(self) -> bytes | memoryview:
        """Serialise the pixels row by row, then the mask as bits where there is one.

        Without a mask the result is a view of the pixels, not a copy.
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
        """Read a part that `to_bytes` serialised.

        Args:
            cell: The cell (i, j).
            box: x, y, width and height within the cell's box, pixels.
            data: The bytes; the part's pixels are a view of them.
            sharpness: Of the part, as it was stored.
        """
        x, y, width, height = box
        area = width * height
        pixels = np.frombuffer(data, np.uint8, 3 * area).reshape(height, width, 3)
        bits = np.frombuffer(data, np.uint8, offset=3 * area)
        mask = np.unpackbits(bits, count=area).reshape(height, width).astype(np.bool_)
        return CellPart(*cell, x, y, pixels, sharpness, mask if len(bits) else None)


@dataclass(slots=True, eq=False)
class PendingCell:
    """The known pixels of an incomplete cell.

    The parts are kept as they came and painted once, when the cell is complete: a removed part
    leaves no trace, and a restart from the same parts gives the same state.

    Attributes:
        known: Pixels of the cell's box that a field has given, bool (box rows, box columns).
        parts: (sequence, part) in the order of arrival.
        known_px: Number of known pixels.
        tissue_px: Number of tissue pixels among them.
    """

    known: BoolArray
    parts: list[tuple[int, CellPart]] = field(default_factory=list)
    known_px: int = 0
    tissue_px: int = 0

    def add(self, sequence: int, part: CellPart, test: TissueTest) -> None:
        """Add a part; of a pixel that several fields show, the first field's value is kept."""
        height, width = part.pixels.shape[:2]
        known = self.known[part.y : part.y + height, part.x : part.x + width]
        # The first part is new as a whole; most parts are a cell's first.
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
        """Write the parts into the box's pixels (h, w, 3); an earlier part overwrites a later."""
        for _, part in reversed(self.parts):
            height, width = part.pixels.shape[:2]
            target = pixels[part.y : part.y + height, part.x : part.x + width]
            if part.mask is None:
                target[...] = part.pixels
            else:
                np.copyto(target, part.pixels, where=part.mask[:, :, None])
