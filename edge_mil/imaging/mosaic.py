"""The cells of one slide as its fields arrive: whole ones become tiles, parts wait for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_mil.imaging.grid import Box, Cell, GridGeometry
from edge_mil.imaging.outline import cells_inside
from edge_mil.imaging.resample import resample_cell
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Measure, Region, UInt8Array, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Pixels of a cell that is not complete yet, as one field gave them.

    Attributes:
        i: Column of the cell.
        j: Row of the cell.
        x: Column of the part's left edge within the cell's box.
        y: Row of the part's top edge within the cell's box.
        pixels: RGB uint8, shape (h, w, 3), a copy.
    """

    i: int
    j: int
    x: int
    y: int
    pixels: UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class FieldView:
    """What one field brings; nothing is changed until `Mosaic.apply`.

    Attributes:
        sequence: Number of the field.
        verdict: ACCEPTED, DUPLICATE or BLANK.
        cells: Cells (i, j) that are complete now and show tissue, row by row.
        tiles: Their tiles, RGB uint8, shape (n, tile_h, tile_w, 3), in the order of `cells`.
        glass: Cells that are complete now and show none.
        parts: New pixels of cells that still lack some; also of a BLANK field.
        sources: Newly complete cell, glass too -> every field that gave it pixels, this one last.
        held: How many cells held before the field shows, wholly or in part.
        measures: `tissue_share`: the largest among the cells in it, with the threshold.
    """

    sequence: int
    verdict: Verdict
    cells: tuple[Cell, ...]
    tiles: UInt8Array
    glass: tuple[Cell, ...]
    parts: tuple[Part, ...]
    sources: dict[Cell, tuple[int, ...]]
    held: int
    measures: tuple[Measure, ...]


@dataclass(slots=True, eq=False)
class _Partial:
    """A cell of which some pixels are known.

    The parts are kept as they came and painted together once, at the end: a part that is removed
    then leaves no trace, and a restart that gives the same parts back is at the same state.
    """

    known: npt.NDArray[np.bool_]
    parts: list[tuple[int, Part]] = field(default_factory=list)
    known_px: int = 0
    tissue_px: int = 0

    def add(self, sequence: int, part: Part, test: TissueTest) -> None:
        """Take the pixels that were not known; the first writer of a pixel stays."""
        height, width = part.pixels.shape[:2]
        known = self.known[part.y : part.y + height, part.x : part.x + width]
        new = ~known
        self.known_px += int(np.count_nonzero(new))
        # The first part of a cell is all new, and most parts are first ones.
        self.tissue_px += (
            int(np.count_nonzero(test.mask(part.pixels)[new]))
            if self.parts
            else test.count(part.pixels)
        )
        known[...] = True
        self.parts.append((sequence, part))

    def paint(self, pixels: UInt8Array) -> None:
        """Lay the parts over the box's pixels; earlier ones cover later ones."""
        for _, part in reversed(self.parts):
            height, width = part.pixels.shape[:2]
            pixels[part.y : part.y + height, part.x : part.x + width] = part.pixels


class Mosaic:
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
    ) -> None:
        """Begin with no cell known.

        Args:
            geometry: The session's grid.
            background: Colour of empty glass, RGB 0 to 255.
            min_difference: Grey levels darker than it that make a pixel tissue.
            min_share: Share of tissue pixels that makes a cell tissue.
            outline: Where the tissue is, when it is known before; only coverage uses it.
        """
        self.geometry = geometry
        self.tissue = TissueTest(background, min_difference, min_share)
        self._held: dict[Cell, tuple[int, ...]] = {}
        self._glass: dict[Cell, tuple[int, ...]] = {}
        self._partial: dict[Cell, _Partial] = {}
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

    def look(self, pixels: UInt8Array, x_um: float, y_um: float, sequence: int) -> FieldView:
        """Say what a field brings, without taking it.

        Args:
            pixels: RGB uint8, shape (h, w, 3).
            x_um: Stage x of its centre, um.
            y_um: Stage y of its centre, um.
            sequence: Its number.
        """
        height, width = pixels.shape[:2]
        left, top = self.geometry.place(width, height, x_um, y_um)
        return _Look(self, pixels, left, top, sequence).view()

    def apply(self, view: FieldView) -> None:
        """Take what `look` found; no other field may have been taken between the two."""
        for cell in view.cells:
            self.restore_cell(*cell, True, view.sources[cell])
        for cell in view.glass:
            self.restore_cell(*cell, False, view.sources[cell])
        for part in view.parts:
            self.restore_part(view.sequence, part)

    def restore_cell(self, i: int, j: int, tissue: bool, sources: Iterable[int]) -> None:
        """Put back a complete cell, as a record says it; also the way that `apply` adds one."""
        cell, given = (i, j), tuple(sources)
        before = self._partial.pop(cell, None)
        if before is not None:
            self._tissue_partial -= self._shows_tissue(before)
            for sequence, _ in before.parts:
                self._forget(sequence, cell)
        (self._held if tissue else self._glass)[cell] = given
        self._open -= cell in self._outline
        for sequence in given:
            self._given.setdefault(sequence, set()).add(cell)

    def restore_part(self, sequence: int, part: Part) -> None:
        """Put back pixels that wait, as a record says it: in the order of sequence numbers."""
        cell = (part.i, part.j)
        partial = self._partial.get(cell)
        if partial is None:
            box = self.geometry.box(*cell)
            partial = _Partial(np.zeros((box.height_px, box.width_px), dtype=np.bool_))
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

    def _shows_tissue(self, partial: _Partial) -> bool:
        return partial.known_px > 0 and (
            partial.tissue_px >= self.tissue.min_share * partial.known_px
        )

    def _forget(self, sequence: int, cell: Cell) -> None:
        given = self._given.get(sequence)
        if given is not None:
            given.discard(cell)
            if not given:
                del self._given[sequence]

    def _status(self, cell: Cell) -> _Partial | bool | None:
        """Return True for a held cell, False for glass, what is known of it, or None."""
        if cell in self._held:
            return True
        return False if cell in self._glass else self._partial.get(cell)


class _Look:
    """One field laid over the mosaic."""

    def __init__(
        self, mosaic: Mosaic, pixels: UInt8Array, left: int, top: int, sequence: int
    ) -> None:
        self.mosaic, self.geometry, self.test = mosaic, mosaic.geometry, mosaic.tissue
        self.pixels, self.left, self.top, self.sequence = pixels, left, top, sequence
        self.complete: list[tuple[Cell, UInt8Array]] = []
        self.glass: list[Cell] = []
        self.parts: list[Part] = []
        self.sources: dict[Cell, tuple[int, ...]] = {}
        self.held = 0
        self.largest = 0.0

    def view(self) -> FieldView:
        """Visit every cell that the field touches, and judge."""
        height, width = self.pixels.shape[:2]
        geometry, test = self.geometry, self.test
        for cell in geometry.cells_touching(self.left, self.top, width, height):
            self._visit(cell, geometry.box(*cell))
        shows_tissue = self.largest >= test.min_share
        new = bool(self.complete or self.glass or self.parts)
        verdict = Verdict.ACCEPTED if new else Verdict.DUPLICATE
        if not shows_tissue:
            verdict = Verdict.BLANK
        tiles = np.empty((len(self.complete), geometry.tile_h, geometry.tile_w, 3), np.uint8)
        for row, (_, tile) in enumerate(self.complete):
            tiles[row] = tile
        return FieldView(
            sequence=self.sequence,
            verdict=verdict,
            cells=tuple(cell for cell, _ in self.complete),
            tiles=tiles,
            glass=tuple(self.glass),
            parts=tuple(self.parts),
            sources=self.sources,
            held=self.held,
            measures=(Measure("tissue_share", self.largest, test.min_share, shows_tissue),),
        )

    def _visit(self, cell: Cell, box: Box) -> None:
        height, width = self.pixels.shape[:2]
        # The part that the field shows, within the field and within the box.
        x0, x1 = max(box.x0, self.left), min(box.x1, self.left + width)
        y0, y1 = max(box.y0, self.top), min(box.y1, self.top + height)
        shown = self.pixels[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left]
        whole = shown.shape[:2] == (box.height_px, box.width_px)
        status = self.mosaic._status(cell)  # noqa: SLF001 - one module, two halves of one class
        if isinstance(status, bool):
            if status:
                self.held += 1
                # Wholly in view it is tissue, as decided on its tile; else its part decides.
                self._found(self.test.min_share if whole else self.test.share(shown))
        elif whole and status is None:
            self._completed(cell, shown, (self.sequence,))
        else:
            self._partly(cell, box, status, shown, x0 - box.x0, y0 - box.y0)

    def _partly(
        self, cell: Cell, box: Box, status: _Partial | None, shown: UInt8Array, x: int, y: int
    ) -> None:
        self._found(self.test.share(shown))
        if status is None:
            self.parts.append(Part(*cell, x, y, shown.copy()))
            return
        height, width = shown.shape[:2]
        lacking = ~status.known[y : y + height, x : x + width]
        new_px = int(np.count_nonzero(lacking))
        if not new_px:
            return
        if status.known_px + new_px == status.known.size:
            pixels = np.empty((box.height_px, box.width_px, 3), np.uint8)
            pixels[y : y + height, x : x + width] = shown
            status.paint(pixels)
            sources = dict.fromkeys((*(number for number, _ in status.parts), self.sequence))
            self._completed(cell, pixels, tuple(sources))
            return
        # Only the rectangle around what is new: a field that drifts over a cell pixel by pixel
        # must not store the whole of it every time.
        columns, rows = np.flatnonzero(lacking.any(axis=0)), np.flatnonzero(lacking.any(axis=1))
        x_new, y_new = int(columns[0]), int(rows[0])
        new = shown[y_new : int(rows[-1]) + 1, x_new : int(columns[-1]) + 1]
        self.parts.append(Part(*cell, x + x_new, y + y_new, new.copy()))

    def _completed(self, cell: Cell, pixels: UInt8Array, sources: tuple[int, ...]) -> None:
        self.sources[cell] = sources
        if self.test.is_surely_glass(pixels):
            self.glass.append(cell)
            return
        tile = resample_cell(pixels, self.geometry, *cell)
        share = self.test.share(tile)
        self._found(share)
        if share >= self.test.min_share:
            self.complete.append((cell, tile))
        else:
            self.glass.append(cell)

    def _found(self, share: float) -> None:
        self.largest = max(self.largest, share)


def _by_row(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: (cell[1], cell[0])))
