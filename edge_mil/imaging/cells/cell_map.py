"""The state of every cell of one slide: held, glass, or pending until its last pixels come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from edge_mil.imaging.cells.assembly import GLASS, CellAssembler, CellStatus, CellUpdate
from edge_mil.imaging.cells.pending import BoolArray, CellPart, PendingCell
from edge_mil.imaging.cells.replacement import Sharpness, ViewSharpness, lowest_sharpness
from edge_mil.imaging.grid import Cell, GridGeometry
from edge_mil.imaging.outline import cells_inside
from edge_mil.imaging.quality.cell_focus import BlurTest
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Region, UInt8Array


class CellMap:
    """Every cell of a session's grid that a field has shown; one owner, one thread.

    `plan` computes and changes nothing; `commit` applies a plan. Features are extracted between
    the two, and where that fails nothing has changed.
    """

    def __init__(
        self,
        geometry: GridGeometry,
        *,
        background: tuple[float, ...],
        min_difference: float,
        min_share: float,
        outline: Sequence[Region] = (),
        area: Region | None = None,
    ) -> None:
        """Begin with no cell known.

        Args:
            geometry: The session's grid.
            background: Colour of empty glass, RGB 0 to 255.
            min_difference: Grey levels below it from which a pixel is tissue.
            min_share: Share of tissue pixels from which a cell is tissue, 0 to 1.
            outline: Tissue outline, stage um, where it is known before; only coverage uses it.
            area: Area that is read, stage um; pixels beyond it are ignored. None: no limit.
        """
        self.geometry = geometry
        self.tissue = TissueTest(background, min_difference, min_share)
        self._held: dict[Cell, tuple[int, ...]] = {}
        self._sharpness: dict[Cell, tuple[ViewSharpness, ...]] = {}
        self._glass: dict[Cell, tuple[int, ...]] = {}
        self._pending: dict[Cell, PendingCell] = {}
        self._area = None if area is None else geometry.inside(area)
        self._outline = frozenset(cells_inside(outline, geometry))
        # Cells of the outline that are not complete, and pending cells that show tissue: counters,
        # because `coverage` is asked after every field.
        self._outline_missing = len(self._outline)
        self._pending_tissue = 0
        self._cells_of_field: dict[int, set[Cell]] = {}

    @property
    def held(self) -> int:
        """Number of complete tissue cells, which are the instances of the bag."""
        return len(self._held)

    @property
    def pending(self) -> int:
        """Number of cells that lack some of their pixels."""
        return len(self._pending)

    def cells(self) -> list[Cell]:
        """Return the held cells, by row, then column."""
        return sorted(self._held, key=lambda cell: (cell[1], cell[0]))

    def plan(
        self,
        pixels: UInt8Array,
        x_um: float,
        y_um: float,
        sequence: int,
        sharpness: Sharpness | None = None,
        mask: BoolArray | None = None,
        blurred: BlurTest | None = None,
    ) -> CellUpdate:
        """Compute what a field adds to the cells; changes nothing.

        Args:
            pixels: RGB uint8, shape (h, w, 3), with the stage's axes.
            x_um: Stage x of its centre, um.
            y_um: Stage y of its centre, um.
            sequence: Number of the field.
            sharpness: Sharpness of a box of the field; None: no held cell is ever replaced.
            mask: Pixels that the camera saw, bool (h, w); None: all.
            blurred: Whether the cell in a box of the field is out of focus; None: none is.
        """
        height, width = pixels.shape[:2]
        left, top = self.geometry.field_corner(width, height, x_um, y_um)
        if self._area is not None:
            x, y = max(0, self._area.x0 - left), max(0, self._area.y0 - top)
            crop = np.s_[y : max(y, self._area.y1 - top), x : max(x, self._area.x1 - left)]
            pixels, mask = pixels[crop], None if mask is None else mask[crop]
            left, top, sharpness = left + x, top + y, _shifted(sharpness, x, y)
            blurred = _shifted(blurred, x, y)
        return CellAssembler(
            self.geometry,
            self.tissue,
            self._status,
            pixels,
            left,
            top,
            sequence,
            sharpness,
            mask,
            blurred,
        ).assemble()

    def commit(self, update: CellUpdate) -> None:
        """Apply a plan; no other field may have been committed since it was made."""
        for cell in update.cells:
            self.restore_cell(*cell, True, update.sources[cell], update.sharpness[cell])
        for cell in update.glass:
            self.restore_cell(*cell, False, update.sources[cell])
        for part in update.parts:
            self.restore_part(update.sequence, part)

    def restore_cell(
        self,
        i: int,
        j: int,
        tissue: bool,
        sources: Iterable[int],
        sharpness: tuple[ViewSharpness, ...] = (),
    ) -> None:
        """Add a complete cell, of a plan or of the store; it replaces one that is held.

        Args:
            i: Column of the cell.
            j: Row of the cell.
            tissue: Whether it shows tissue; else it is glass.
            sources: Fields that gave it pixels.
            sharpness: Of its parts; empty where it was not measured.
        """
        cell, fields = (i, j), tuple(sources)
        replaced = self._held.pop(cell, None)
        if replaced is not None:
            self._outline_missing += cell in self._outline
            for other in replaced:
                self._unlink(other, cell)
        pending = self._pending.pop(cell, None)
        if pending is not None:
            self._pending_tissue -= self._shows_tissue(pending)
            for sequence, _ in pending.parts:
                self._unlink(sequence, cell)
        (self._held if tissue else self._glass)[cell] = fields
        if tissue:
            self._sharpness[cell] = sharpness
        self._outline_missing -= cell in self._outline
        for sequence in fields:
            self._cells_of_field.setdefault(sequence, set()).add(cell)

    def restore_part(self, sequence: int, part: CellPart) -> None:
        """Add pixels of an incomplete cell, of a plan or of the store, by sequence numbers."""
        cell = (part.i, part.j)
        pending = self._pending.get(cell)
        if pending is None:
            box = self.geometry.box(*cell)
            pending = PendingCell(np.zeros((box.height_px, box.width_px), dtype=np.bool_))
            self._pending[cell] = pending
        self._pending_tissue -= self._shows_tissue(pending)
        pending.add(sequence, part, self.tissue)
        self._pending_tissue += self._shows_tissue(pending)
        self._cells_of_field.setdefault(sequence, set()).add(cell)

    def remove(self, sequence: int) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
        """Remove a field and every complete cell that holds a pixel of it.

        A complete cell loses the pixels of the other fields too; a pending cell keeps them.

        Returns:
            The tissue cells that leave the bag; and all cells, those included, that must be shown
            again before they are complete. Both by row, then column.
        """
        removed: list[Cell] = []
        incomplete: list[Cell] = []
        for cell in self._cells_of_field.pop(sequence, set()):
            incomplete.append(cell)
            if cell in self._held:
                removed.append(cell)
            sources = self._held.pop(cell, None)
            self._sharpness.pop(cell, None)
            if sources is None:
                sources = self._glass.pop(cell, None)
            if sources is not None:
                self._outline_missing += cell in self._outline
                for other in sources:
                    self._unlink(other, cell)
                continue
            pending = self._pending.pop(cell)
            self._pending_tissue -= self._shows_tissue(pending)
            for other, part in pending.parts:
                if other != sequence:
                    self.restore_part(other, part)
        return _by_row(removed), _by_row(incomplete)

    def coverage(self) -> float:
        """Return the share held of the tissue cells known so far, 0 to 1; 0 when none is known.

        Known are the cells held and, with an outline, its cells that were not found to be glass;
        without one, the pending cells whose known pixels show tissue.
        """
        missing = self._outline_missing if self._outline else self._pending_tissue
        known = len(self._held) + missing
        return len(self._held) / known if known else 0.0

    def shares(self) -> dict[Cell, float]:
        """Return the share shown so far of each known or expected cell, 0 to 1; thread-safe."""
        shares = dict.fromkeys(self._outline, 0.0)
        # `list` copies in one step, so that the owner may go on in another thread.
        for cell, pending in list(self._pending.items()):
            shares[cell] = pending.known_px / pending.known.size
        shares.update(dict.fromkeys([*list(self._held), *list(self._glass)], 1.0))
        return shares

    def focus(self) -> dict[Cell, float]:
        """Return the sharpness of each held cell where it was measured; thread-safe."""
        lowest = ((cell, lowest_sharpness(parts)) for cell, parts in list(self._sharpness.items()))
        return {cell: sharpness for cell, sharpness in lowest if math.isfinite(sharpness)}

    def _shows_tissue(self, pending: PendingCell) -> bool:
        return pending.known_px > 0 and (
            pending.tissue_px >= self.tissue.min_share * pending.known_px
        )

    def _unlink(self, sequence: int, cell: Cell) -> None:
        cells = self._cells_of_field.get(sequence)
        if cells is not None:
            cells.discard(cell)
            if not cells:
                del self._cells_of_field[sequence]

    def _status(self, cell: Cell) -> CellStatus:
        if cell in self._held:
            return self._sharpness[cell]
        return GLASS if cell in self._glass else self._pending.get(cell)


MeasureT = TypeVar("MeasureT")


def _shifted(
    measure: Callable[[int, int, int, int], MeasureT] | None, x: int, y: int
) -> Callable[[int, int, int, int], MeasureT] | None:
    """Return a measure of boxes of a field whose first x columns and y rows were cut off."""
    if measure is None or not (x or y):
        return measure
    return lambda x0, y0, x1, y1: measure(x0 + x, y0 + y, x1 + x, y1 + y)


def _by_row(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: (cell[1], cell[0])))
