"""One field laid over the cells: what it completes, brings in part, and shows better."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from edge_mil.imaging.cells.pending import BoolArray, CellPart, PendingCell
from edge_mil.imaging.cells.replacement import Sharpness, ViewSharpness, clearly_sharper, measure
from edge_mil.imaging.grid import Box, Cell, GridGeometry
from edge_mil.imaging.resample import resample_cell
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Measure, UInt8Array, Verdict


class Glass(enum.Enum):
    """A complete cell without tissue."""

    GLASS = "glass"


GLASS: Final = Glass.GLASS

Known: TypeAlias = Callable[[Cell], "tuple[ViewSharpness, ...] | Glass | PendingCell | None"]
"""What is known of a cell: how a held one was seen, that it is glass, its parts, or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class CellUpdate:
    """What one field brings; nothing is changed until `CellMap.apply`.

    Attributes:
        sequence: Number of the field.
        verdict: ACCEPTED, DUPLICATE or BLANK.
        cells: Cells (i, j) that are complete now and show tissue, row by row, and those held
            before that it shows clearly sharper.
        tiles: Their tiles, RGB uint8, shape (n, tile_h, tile_w, 3), in the order of `cells`.
        glass: Cells that are complete now and show none.
        parts: New pixels of cells that still lack some; also of a BLANK field.
        improved: Those of `cells` that were held before.
        sources: Each of `cells` and `glass` -> every field that gave it pixels, this one last.
        seen: Each of `cells` and `glass` -> how sharply its parts were seen.
        held: How many cells held before the field shows, wholly or in part.
        measures: `tissue_share`: the largest among the cells in it, with the threshold.
    """

    sequence: int
    verdict: Verdict
    cells: tuple[Cell, ...]
    tiles: UInt8Array
    glass: tuple[Cell, ...]
    parts: tuple[CellPart, ...]
    improved: frozenset[Cell]
    sources: dict[Cell, tuple[int, ...]]
    seen: dict[Cell, tuple[ViewSharpness, ...]]
    held: int
    measures: tuple[Measure, ...]


class CellAssembler:
    """One field laid over the cells; computes, and changes nothing outside of itself."""

    def __init__(
        self,
        geometry: GridGeometry,
        test: TissueTest,
        known: Known,
        pixels: UInt8Array,
        left: int,
        top: int,
        sequence: int,
        sharpness: Sharpness | None,
        mask: BoolArray | None = None,
    ) -> None:
        """Lay a field.

        Args:
            geometry: The session's grid.
            test: Its tissue test.
            known: What is known of a cell.
            pixels: RGB uint8, shape (h, w, 3).
            left: Lattice column of the field's left edge.
            top: Lattice row of its top edge.
            sequence: Its number.
            sharpness: Of a box of the field; None: no cell is ever seen better.
            mask: Which pixels the camera saw, bool (h, w); the others count for nothing.
                None: all.
        """
        self.geometry, self.test, self.known = geometry, test, known
        self.pixels, self.left, self.top, self.sequence = pixels, left, top, sequence
        self.sharpness, self.mask = sharpness, mask
        self.complete: list[Cell] = []
        self.tiles: UInt8Array = np.empty((0, geometry.tile_h, geometry.tile_w, 3), np.uint8)
        self.glass: list[Cell] = []
        self.parts: list[CellPart] = []
        self.improved: set[Cell] = set()
        self.sources: dict[Cell, tuple[int, ...]] = {}
        self.seen: dict[Cell, tuple[ViewSharpness, ...]] = {}
        self.held = 0
        self.largest = 0.0

    def view(self) -> CellUpdate:
        """Visit every cell that the field touches, and judge."""
        height, width = self.pixels.shape[:2]
        geometry, test = self.geometry, self.test
        touched = geometry.cells_touching(self.left, self.top, width, height)
        if not (width and height):
            touched = []
        # Memory that no tile is written to costs nothing.
        self.tiles = np.empty((len(touched), geometry.tile_h, geometry.tile_w, 3), np.uint8)
        for cell in touched:
            self._visit(cell, geometry.box(*cell))
        shows_tissue = self.largest >= test.min_share
        new = bool(self.complete or self.glass or self.parts)
        verdict = Verdict.ACCEPTED if new else Verdict.DUPLICATE
        if not shows_tissue:
            verdict = Verdict.BLANK
        return CellUpdate(
            sequence=self.sequence,
            verdict=verdict,
            cells=tuple(self.complete),
            tiles=self.tiles[: len(self.complete)],
            glass=tuple(self.glass),
            parts=tuple(self.parts),
            improved=frozenset(self.improved),
            sources=self.sources,
            seen=self.seen,
            held=self.held,
            measures=(Measure("tissue_share", self.largest, test.min_share, shows_tissue),),
        )

    def _visit(self, cell: Cell, box: Box) -> None:
        height, width = self.pixels.shape[:2]
        # The part that the field shows, within the field and within the box.
        x0, x1 = max(box.x0, self.left), min(box.x1, self.left + width)
        y0, y1 = max(box.y0, self.top), min(box.y1, self.top + height)
        crop = np.s_[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left]
        shown, valid = self.pixels[crop], None if self.mask is None else self.mask[crop]
        if valid is not None:
            if not valid.any():
                return
            valid = None if valid.all() else valid
        whole = shown.shape[:2] == (box.height_px, box.width_px) and valid is None
        status = self.known(cell)
        if status is GLASS:
            return
        if isinstance(status, tuple):
            if not (whole and self._improves(cell, box, shown, status)):
                self.held += 1
                # Wholly in view it is tissue, as decided on its tile; else its part decides.
                self._found(self.test.min_share if whole else self._share(shown, valid))
        elif whole and status is None:
            all_of_it = self._seen(box, 0, 0, box.width_px, box.height_px)
            self._completed(cell, shown, (self.sequence,), (all_of_it,))
        else:
            self._partly(cell, box, status, shown, valid, x0 - box.x0, y0 - box.y0)

    def _improves(
        self, cell: Cell, box: Box, shown: UInt8Array, before: tuple[ViewSharpness, ...]
    ) -> bool:
        """Take a held cell anew when this field shows it clearly sharper."""
        if self.sharpness is None or not before:
            return False
        now = tuple(self._seen(box, p.x, p.y, p.width_px, p.height_px) for p in before)
        if not clearly_sharper(before, now):
            return False
        if self._tissue_of_tile(cell, shown) < self.test.min_share:
            return False
        self.sources[cell], self.seen[cell] = (self.sequence,), now
        self.complete.append(cell)
        self.improved.add(cell)
        self._found(self.test.min_share)
        return True

    def _seen(self, box: Box, x: int, y: int, width_px: int, height_px: int) -> ViewSharpness:
        """Measure a part of a cell, given within the cell's box."""
        left, top = box.x0 + x - self.left, box.y0 + y - self.top
        sharpness = measure(self.sharpness, left, top, width_px, height_px)
        return ViewSharpness(x, y, width_px, height_px, sharpness)

    def _partly(
        self,
        cell: Cell,
        box: Box,
        status: PendingCell | None,
        shown: UInt8Array,
        valid: BoolArray | None,
        x: int,
        y: int,
    ) -> None:
        height, width = shown.shape[:2]
        if status is None and valid is None:
            seen, tissue_px = self._seen(box, x, y, width, height), self.test.count(shown)
            self._found(tissue_px / (height * width))
            part = CellPart(*cell, x, y, shown.copy(), seen.sharpness, tissue_px=tissue_px)
            self.parts.append(part)
            return
        self._found(self._share(shown, valid))
        known = None if status is None else status.known[y : y + height, x : x + width]
        if known is not None and known.all():
            return
        lacking = valid if known is None else ~known if valid is None else ~known & valid
        assert lacking is not None
        new_px = int(np.count_nonzero(lacking))
        if not new_px:
            return
        # Only the rectangle around what is new: a field that drifts over a cell pixel by pixel
        # must not store the whole of it every time.
        columns, rows = np.flatnonzero(lacking.any(axis=0)), np.flatnonzero(lacking.any(axis=1))
        x_new, y_new = int(columns[0]), int(rows[0])
        around = np.s_[y_new : int(rows[-1]) + 1, x_new : int(columns[-1]) + 1]
        new, mask = shown[around], None if valid is None else valid[around]
        seen = self._seen(box, x + x_new, y + y_new, new.shape[1], new.shape[0])
        part = CellPart(
            *cell,
            seen.x,
            seen.y,
            new.copy(),
            seen.sharpness,
            None if mask is None or mask.all() else mask.copy(),
        )
        if status is None or status.known_px + new_px < status.known.size:
            self.parts.append(part)
            return
        pixels = np.empty((box.height_px, box.width_px, 3), np.uint8)
        # What this field lacks others gave, and `paint` lays theirs over its own.
        pixels[y : y + height, x : x + width] = shown
        status.paint(pixels)
        sources = dict.fromkeys((*(number for number, _ in status.parts), self.sequence))
        parts = (*(part.seen() for _, part in status.parts), seen)
        self._completed(cell, pixels, tuple(sources), parts)

    def _completed(
        self,
        cell: Cell,
        pixels: UInt8Array,
        sources: tuple[int, ...],
        seen: tuple[ViewSharpness, ...],
    ) -> None:
        self.sources[cell], self.seen[cell] = sources, seen
        if self.test.is_surely_glass(pixels):
            self.glass.append(cell)
            return
        share = self._tissue_of_tile(cell, pixels)
        self._found(share)
        if share >= self.test.min_share:
            self.complete.append(cell)
        else:
            self.glass.append(cell)

    def _tissue_of_tile(self, cell: Cell, pixels: UInt8Array) -> float:
        """Make the next tile, where it will stay if the cell is taken; return its tissue."""
        tile = self.tiles[len(self.complete)]
        return self.test.share(resample_cell(pixels, self.geometry, *cell, out=tile))

    def _share(self, shown: UInt8Array, valid: BoolArray | None) -> float:
        """Return the share of tissue among the pixels that the camera saw."""
        if valid is None:
            return self.test.share(shown)
        tissue = np.count_nonzero(self.test.mask(shown)[valid])
        return int(tissue) / int(np.count_nonzero(valid))

    def _found(self, share: float) -> None:
        self.largest = max(self.largest, share)
