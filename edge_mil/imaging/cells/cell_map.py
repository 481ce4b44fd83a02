"""The cells of one slide as its fields arrive: whole ones become tiles, parts wait for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from edge_mil.imaging.cells.assembly import GLASS, CellAssembler, CellUpdate, Glass
from edge_mil.imaging.cells.pending import BoolArray, CellPart, PendingCell
from edge_mil.imaging.cells.replacement import Sharpness, ViewSharpness, worst_of
from edge_mil.imaging.grid import Cell, GridGeometry
from edge_mil.imaging.outline import cells_inside
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Region, UInt8Array


class CellMap:
    """The state of every cell that a session has met.

    One owner, one thread. `look` computes and changes nothing, `apply` takes what `look` found, so
    that features can be extracted, and may fail, in between.
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
            min_difference: Grey levels darker than it that make a pixel tissue.
            min_share: Share of tissue pixels that makes a cell tissue.
            outline: Where the tissue is, when it is known before; only coverage uses it.
            area: What is read, stage um; pixels beyond it count for nothing. None: everything.
        """
        self.geometry = geometry
        self.tissue = TissueTest(background, min_difference, min_share)
        self._held: dict[Cell, tuple[int, ...]] = {}
        self._seen: dict[Cell, tuple[ViewSharpness, ...]] = {}
        self._glass: dict[Cell, tuple[int, ...]] = {}
        self._partial: dict[Cell, PendingCell] = {}
        self._area = None if area is None else geometry.inside(area)
        self._outline = frozenset(cells_inside(outline, geometry))
        self._open = len(self._outline)
        self._tissue_partial = 0
        self._given: dict[int, set[Cell]] = {}

    @property
    def held(self) -> int:
        """How many complete tissue cells there are: the instances of the bag."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many cells wait for the rest of their pixels."""
        return len(self._partial)

    def cells(self) -> list[Cell]:
        """Return the held cells, by row, then column."""
        return sorted(self._held, key=lambda cell: (cell[1], cell[0]))

    def look(
        self,
        pixels: UInt8Array,
        x_um: float,
        y_um: float,
        sequence: int,
        sharpness: Sharpness | None = None,
        mask: BoolArray | None = None,
    ) -> CellUpdate:
        """Say what a field brings, without taking it.

        Args:
            pixels: RGB uint8, shape (h, w, 3).
            x_um: Stage x of its centre, um.
            y_um: Stage y of its centre, um.
            sequence: Its number.
            sharpness: Gives the sharpness of a box of the field; without it no cell that is held
                is ever seen better.
            mask: Which pixels the camera saw, bool (h, w); None: all.
        """
        height, width = pixels.shape[:2]
        left, top = self.geometry.place(width, height, x_um, y_um)
        if self._area is not None:
            x, y = max(0, self._area.x0 - left), max(0, self._area.y0 - top)
            crop = np.s_[y : max(y, self._area.y1 - top), x : max(x, self._area.x1 - left)]
            pixels, mask = pixels[crop], None if mask is None else mask[crop]
            left, top, sharpness = left + x, top + y, _shifted(sharpness, x, y)
        return CellAssembler(
            self.geometry, self.tissue, self._known, pixels, left, top, sequence, sharpness, mask
        ).view()

    def apply(self, view: CellUpdate) -> None:
        """Take what `look` found; no other field may have been taken between the two."""
        for cell in view.cells:
            self.restore_cell(*cell, True, view.sources[cell], view.seen[cell])
        for cell in view.glass:
            self.restore_cell(*cell, False, view.sources[cell])
        for part in view.parts:
            self.restore_part(view.sequence, part)

    def restore_cell(
        self,
        i: int,
        j: int,
        tissue: bool,
        sources: Iterable[int],
        seen: tuple[ViewSharpness, ...] = (),
    ) -> None:
        """Put back a complete cell, as a record says it; also the way that `apply` adds one.

        A cell that is held already gives way.
        """
        cell, given = (i, j), tuple(sources)
        replaced = self._held.pop(cell, None)
        if replaced is not None:
            self._open += cell in self._outline
            for other in replaced:
                self._forget(other, cell)
        before = self._partial.pop(cell, None)
        if before is not None:
            self._tissue_partial -= self._shows_tissue(before)
            for sequence, _ in before.parts:
                self._forget(sequence, cell)
        (self._held if tissue else self._glass)[cell] = given
        if tissue:
            self._seen[cell] = seen
        self._open -= cell in self._outline
        for sequence in given:
            self._given.setdefault(sequence, set()).add(cell)

    def restore_part(self, sequence: int, part: CellPart) -> None:
        """Put back pixels that wait, as a record says it: in the order of sequence numbers."""
        cell = (part.i, part.j)
        partial = self._partial.get(cell)
        if partial is None:
            box = self.geometry.box(*cell)
            partial = PendingCell(np.zeros((box.height_px, box.width_px), dtype=np.bool_))
            self._partial[cell] = partial
        self._tissue_partial -= self._shows_tissue(partial)
        partial.add(sequence, part, self.tissue)
        self._tissue_partial += self._shows_tissue(partial)
        self._given.setdefault(sequence, set()).add(cell)

    def remove(self, sequence: int) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
        """Take a field out, with every cell that holds a pixel of it.

        The pixels of a cell that was complete are gone, those of other fields too; a cell that
        still waits keeps what other fields gave.

        Returns:
            The tissue cells that leave the bag; and the cells, those included, that must be seen
            again before they are complete. Both by row, then column.
        """
        left: list[Cell] = []
        again: list[Cell] = []
        for cell in self._given.pop(sequence, set()):
            again.append(cell)
            if cell in self._held:
                left.append(cell)
            sources = self._held.pop(cell, None)
            self._seen.pop(cell, None)
            if sources is None:
                sources = self._glass.pop(cell, None)
            if sources is not None:
                self._open += cell in self._outline
                for other in sources:
                    self._forget(other, cell)
                continue
            old = self._partial.pop(cell)
            self._tissue_partial -= self._shows_tissue(old)
            for other, part in old.parts:
                if other != sequence:
                    self.restore_part(other, part)
        return _by_row(left), _by_row(again)

    def coverage(self) -> float:
        """Return the share held of the tissue cells known so far, 0 to 1; 0 when none is known.

        Known are the cells held and, with an outline, its cells that were not found to be glass;
        without one, the incomplete cells whose known pixels show tissue.
        """
        missing = self._open if self._outline else self._tissue_partial
        known = len(self._held) + missing
        return len(self._held) / known if known else 0.0

    def shares(self) -> dict[Cell, float]:
        """Return the share seen of each cell that was met or is expected, 0 to 1; any thread."""
        found = dict.fromkeys(self._outline, 0.0)
        # A list is made at once, so that another thread may go on meanwhile.
        for cell, partial in list(self._partial.items()):
            found[cell] = partial.known_px / partial.known.size
        found.update(dict.fromkeys([*list(self._held), *list(self._glass)], 1.0))
        return found

    def focus(self) -> dict[Cell, float]:
        """Return how sharply each held cell was seen, where that was judged; from any thread."""
        seen = ((cell, worst_of(parts)) for cell, parts in list(self._seen.items()))
        return {cell: sharpness for cell, sharpness in seen if math.isfinite(sharpness)}

    def _shows_tissue(self, partial: PendingCell) -> bool:
        return partial.known_px > 0 and (
            partial.tissue_px >= self.tissue.min_share * partial.known_px
        )

    def _forget(self, sequence: int, cell: Cell) -> None:
        given = self._given.get(sequence)
        if given is not None:
            given.discard(cell)
            if not given:
                del self._given[sequence]

    def _known(self, cell: Cell) -> tuple[ViewSharpness, ...] | Glass | PendingCell | None:
        if cell in self._held:
            return self._seen[cell]
        return GLASS if cell in self._glass else self._partial.get(cell)


def _shifted(sharpness: Sharpness | None, x: int, y: int) -> Sharpness | None:
    """Return the sharpness of a field of which the first columns and rows were cut off."""
    if sharpness is None or not (x or y):
        return sharpness
    return lambda x0, y0, x1, y1: sharpness(x0 + x, y0 + y, x1 + x, y1 + y)


def _by_row(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: (cell[1], cell[0])))
