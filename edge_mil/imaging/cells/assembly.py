"""Compute what one field adds to the cells: completed cells, parts of cells, sharper views."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from edge_mil.imaging.cells.pending import BoolArray, CellPart, PendingCell
from edge_mil.imaging.cells.replacement import (
    Sharpness,
    ViewSharpness,
    clearly_sharper,
    part_sharpness,
)
from edge_mil.imaging.grid import Box, Cell, GridGeometry
from edge_mil.imaging.quality.cell_focus import BlurTest
from edge_mil.imaging.resample import resample_cell
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Measure, UInt8Array, Verdict


class Glass(enum.Enum):
    """Marks a complete cell without tissue."""

    GLASS = "glass"


GLASS: Final = Glass.GLASS

CellStatus: TypeAlias = "tuple[ViewSharpness, ...] | Glass | PendingCell | None"
"""State of a cell: the sharpness of a held one's parts, glass, a pending cell, or unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class CellUpdate:
    """What one field adds to a `CellMap`; nothing changes until `CellMap.commit`.

    Attributes:
        sequence: Number of the field.
        verdict: ACCEPTED, DUPLICATE, BLANK, or BLURRED where cells were left out and no other
            tissue is new.
        cells: Tissue cells (i, j) that this field completes, row by row, and held cells that it
            shows clearly more sharply.
        tiles: Their tiles, RGB uint8, shape (n, tile_h, tile_w, 3), in the order of `cells`.
        glass: Cells that this field completes and that show no tissue.
        parts: New pixels of cells that are still incomplete; a BLANK field has them too.
        improved: Those of `cells` that were held before.
        sources: Each of `cells` and `glass` -> the fields that gave it pixels, this one last.
        sharpness: Each of `cells` and `glass` -> the sharpness of its parts.
        held: Number of cells held before that the field shows, wholly or in part.
        measures: `tissue_share`: the largest of the field's cells, with the threshold;
            `blurred_cells`: those that were left out, where there are any.
    """

    sequence: int
    verdict: Verdict
    cells: tuple[Cell, ...]
    tiles: UInt8Array
    glass: tuple[Cell, ...]
    parts: tuple[CellPart, ...]
    improved: frozenset[Cell]
    sources: dict[Cell, tuple[int, ...]]
    sharpness: dict[Cell, tuple[ViewSharpness, ...]]
    held: int
    measures: tuple[Measure, ...]


class CellAssembler:
    """Assembles the cells of one field, for `CellMap.plan`; changes nothing outside of itself."""

    def __init__(
        self,
        geometry: GridGeometry,
        test: TissueTest,
        status_of: Callable[[Cell], CellStatus],
        pixels: UInt8Array,
        left: int,
        top: int,
        sequence: int,
        sharpness: Sharpness | None,
        mask: BoolArray | None,
        blurred: BlurTest | None,
    ) -> None:
        self._geometry, self._test, self._status_of = geometry, test, status_of
        self._pixels, self._left, self._top, self._sequence = pixels, left, top, sequence
        self._field_sharpness, self._mask, self._blurred = sharpness, mask, blurred
        self._complete: list[Cell] = []
        self._tiles: UInt8Array = np.empty((0, geometry.tile_h, geometry.tile_w, 3), np.uint8)
        self._glass: list[Cell] = []
        self._parts: list[CellPart] = []
        self._improved: set[Cell] = set()
        self._sources: dict[Cell, tuple[int, ...]] = {}
        self._sharpness: dict[Cell, tuple[ViewSharpness, ...]] = {}
        self._held = 0
        self._left_out = 0
        self._takes_tissue = False
        self._largest_share = 0.0

    def assemble(self) -> CellUpdate:
        """Visit every cell that the field touches and return what the field adds."""
        height, width = self._pixels.shape[:2]
        geometry, test = self._geometry, self._test
        touched = geometry.cells_touching(self._left, self._top, width, height)
        if not (width and height):
            touched = []
        # Pages of memory that no tile is written to are never touched, so they cost nothing.
        self._tiles = np.empty((len(touched), geometry.tile_h, geometry.tile_w, 3), np.uint8)
        for cell in touched:
            self._assemble_cell(cell, geometry.box(*cell))
        shows_tissue = self._largest_share >= test.min_share
        new = bool(self._complete or self._glass or self._parts)
        verdict = Verdict.ACCEPTED if new else Verdict.DUPLICATE
        if not shows_tissue:
            verdict = Verdict.BLANK
        elif self._left_out and not self._takes_tissue:
            verdict = Verdict.BLURRED
        measures = [Measure("tissue_share", self._largest_share, test.min_share, shows_tissue)]
        if self._left_out:
            measures.append(Measure("blurred_cells", self._left_out))
        return CellUpdate(
            sequence=self._sequence,
            verdict=verdict,
            cells=tuple(self._complete),
            tiles=self._tiles[: len(self._complete)],
            glass=tuple(self._glass),
            parts=tuple(self._parts),
            improved=frozenset(self._improved),
            sources=self._sources,
            sharpness=self._sharpness,
            held=self._held,
            measures=tuple(measures),
        )

    def _assemble_cell(self, cell: Cell, box: Box) -> None:
        height, width = self._pixels.shape[:2]
        # The intersection of the cell's box and the field, as indices into the field.
        x0, x1 = max(box.x0, self._left), min(box.x1, self._left + width)
        y0, y1 = max(box.y0, self._top), min(box.y1, self._top + height)
        crop = np.s_[y0 - self._top : y1 - self._top, x0 - self._left : x1 - self._left]
        shown, valid = self._pixels[crop], None if self._mask is None else self._mask[crop]
        if valid is not None:
            if not valid.any():
                return
            valid = None if valid.all() else valid
        whole = shown.shape[:2] == (box.height_px, box.width_px) and valid is None
        status = self._status_of(cell)
        if status is GLASS:
            return
        if isinstance(status, tuple):
            if not (whole and self._improves(cell, box, shown, status)):
                self._held += 1
                # A whole held cell is tissue, as its tile was found; a part is tested by itself.
                share = self._test.min_share if whole else self._tissue_share(shown, valid)
                self._record_share(share)
        elif self._is_left_out(box, shown, valid):
            self._left_out += 1
        elif whole and status is None:
            view = self._view_sharpness(box, 0, 0, box.width_px, box.height_px)
            self._complete_cell(cell, shown, (self._sequence,), (view,))
        else:
            self._add_part(cell, box, status, shown, valid, x0 - box.x0, y0 - box.y0)

    def _is_left_out(self, box: Box, shown: UInt8Array, valid: BoolArray | None) -> bool:
        """Say whether a cell that is not held shows tissue out of focus; note whether it is sharp.

        The field gives nothing to such a cell: neither a tile nor a part.
        """
        share = self._tissue_share(shown, valid)
        if share < self._test.min_share:
            return False
        x, y = box.x0 - self._left, box.y0 - self._top
        if self._blurred is None or not self._blurred(x, y, x + box.width_px, y + box.height_px):
            self._takes_tissue = True
            return False
        self._record_share(share)
        return True

    def _improves(
        self, cell: Cell, box: Box, shown: UInt8Array, before: tuple[ViewSharpness, ...]
    ) -> bool:
        """Replace a held cell where this field shows it clearly more sharply; say whether."""
        if self._field_sharpness is None or not before:
            return False
        now = tuple(self._view_sharpness(box, p.x, p.y, p.width_px, p.height_px) for p in before)
        if not clearly_sharper(before, now):
            return False
        if self._cut_tile(cell, shown) < self._test.min_share:
            return False
        self._sources[cell], self._sharpness[cell] = (self._sequence,), now
        self._complete.append(cell)
        self._improved.add(cell)
        self._record_share(self._test.min_share)
        return True

    def _view_sharpness(
        self, box: Box, x: int, y: int, width_px: int, height_px: int
    ) -> ViewSharpness:
        """Measure the sharpness of a part of a cell; x and y lie within the cell's box."""
        left, top = box.x0 + x - self._left, box.y0 + y - self._top
        sharpness = part_sharpness(self._field_sharpness, left, top, width_px, height_px)
        return ViewSharpness(x, y, width_px, height_px, sharpness)

    def _add_part(
        self,
        cell: Cell,
        box: Box,
        status: PendingCell | None,
        shown: UInt8Array,
        valid: BoolArray | None,
        x: int,
        y: int,
    ) -> None:
        """Add the pixels that an incomplete cell lacks, and complete it where none lack then."""
        height, width = shown.shape[:2]
        # The first part of a cell is new as a whole.
        if status is None and valid is None:
            view = self._view_sharpness(box, x, y, width, height)
            tissue_px = self._test.count(shown)
            self._record_share(tissue_px / (height * width))
            part = CellPart(*cell, x, y, shown.copy(), view.sharpness, tissue_px=tissue_px)
            self._parts.append(part)
            return
        self._record_share(self._tissue_share(shown, valid))
        known = None if status is None else status.known[y : y + height, x : x + width]
        if known is not None and known.all():
            return
        lacking = valid if known is None else ~known if valid is None else ~known & valid
        assert lacking is not None
        new_px = int(np.count_nonzero(lacking))
        if not new_px:
            return
        # Only the rectangle around the new pixels: a field that drifts over a cell pixel by pixel
        # must not store the whole of it every time.
        columns, rows = np.flatnonzero(lacking.any(axis=0)), np.flatnonzero(lacking.any(axis=1))
        x_new, y_new = int(columns[0]), int(rows[0])
        around = np.s_[y_new : int(rows[-1]) + 1, x_new : int(columns[-1]) + 1]
        new, mask = shown[around], None if valid is None else valid[around]
        view = self._view_sharpness(box, x + x_new, y + y_new, new.shape[1], new.shape[0])
        part = CellPart(
            *cell,
            view.x,
            view.y,
            new.copy(),
            view.sharpness,
            None if mask is None or mask.all() else mask.copy(),
        )
        if status is None or status.known_px + new_px < status.known.size:
            self._parts.append(part)
            return
        pixels = np.empty((box.height_px, box.width_px, 3), np.uint8)
        # `paint` overwrites this field's pixels where earlier fields gave theirs.
        pixels[y : y + height, x : x + width] = shown
        status.paint(pixels)
        sources = dict.fromkeys((*(number for number, _ in status.parts), self._sequence))
        views = (*(part.view_sharpness() for _, part in status.parts), view)
        self._complete_cell(cell, pixels, tuple(sources), views)

    def _complete_cell(
        self,
        cell: Cell,
        pixels: UInt8Array,
        sources: tuple[int, ...],
        sharpness: tuple[ViewSharpness, ...],
    ) -> None:
        """Make a complete cell a tile, or glass where it shows no tissue."""
        self._sources[cell], self._sharpness[cell] = sources, sharpness
        if self._test.is_surely_glass(pixels):
            self._glass.append(cell)
            return
        share = self._cut_tile(cell, pixels)
        self._record_share(share)
        if share >= self._test.min_share:
            self._complete.append(cell)
        else:
            self._glass.append(cell)

    def _cut_tile(self, cell: Cell, pixels: UInt8Array) -> float:
        """Resample the next tile in place and return its share of tissue."""
        tile = self._tiles[len(self._complete)]
        return self._test.share(resample_cell(pixels, self._geometry, *cell, out=tile))

    def _tissue_share(self, shown: UInt8Array, valid: BoolArray | None) -> float:
        """Return the share of tissue among the pixels that the camera saw."""
        if valid is None:
            return self._test.share(shown)
        tissue = np.count_nonzero(self._test.mask(shown)[valid])
        return int(tissue) / int(np.count_nonzero(valid))

    def _record_share(self, share: float) -> None:
        self._largest_share = max(self._largest_share, share)
