"""What becomes of counted cells when a loop closes and fields turn out to lie elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_mil.imaging import Cell, CellPart, GridGeometry
from edge_mil.session.instances.rows import cell_of, part_from, part_row, place_of
from edge_mil.store import InstanceRow, PartRow

TWICE = 0.5
"""Share of a cell that two may have in common before it counts as counted twice."""

Offset = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a field lies from where its pixels were taken, camera pixels.

    Attributes:
        before: Until now: its cells' labels and its parts follow this already.
        after: From now on.
    """

    before: Offset
    after: Offset


@dataclass(frozen=True, slots=True, eq=False)
class Relocation:
    """The records after a loop was closed.

    Attributes:
        rows: All cells, at their new places.
        parts: All pixels of unfinished cells, at their new places, in the order of arrival.
        moved: (old place, owner) -> new place, of the cells that go to another one.
        dropped: (old place, owner) of cells that were counted twice.
    """

    rows: tuple[InstanceRow, ...]
    parts: tuple[PartRow, ...]
    moved: Mapping[tuple[str, int], str]
    dropped: tuple[tuple[str, int], ...]


def relocate(
    geometry: GridGeometry,
    rows: Sequence[InstanceRow],
    parts: Sequence[PartRow],
    shifts: Mapping[int, Shift],
) -> Relocation:
    """Move cells and pixels with the fields that they came from.

    A cell keeps its pixels and goes to the grid's nearest place, so that it lies within half a
    cell of where it says. Two that show the same place to a half or more were one place counted
    twice: the one that lies nearer to its grid place stays, of equals the older.

    Args:
        geometry: The session's grid.
        rows: All cells of the session, tissue and glass.
        parts: All pixels of unfinished cells.
        shifts: Field -> its shift; fields that are not named did not move.
    """
    moved: dict[tuple[str, int], str] = {}
    candidates: list[tuple[float, int, Cell, tuple[float, float], InstanceRow]] = []
    for row in rows:
        shift = shifts.get(row.sequence, Shift((0, 0), (0, 0)))
        (i, j), old, new = (
            cell_of(row.instance_key),
            *(_in_cells(geometry, s) for s in _ends(shift)),
        )
        cell = (i + round(new[0]) - round(old[0]), j + round(new[1]) - round(old[1]))
        rest = (new[0] - round(new[0]), new[1] - round(new[1]))
        off = max(abs(rest[0]), abs(rest[1]))
        candidates.append((off, row.sequence, cell, rest, row))
    kept: dict[Cell, tuple[tuple[float, float], InstanceRow]] = {}
    dropped: list[tuple[str, int]] = []
    for _, owner, cell, rest, row in sorted(candidates, key=lambda c: (c[0], c[1], c[2])):
        if _counted(kept, cell, rest):
            dropped.append((row.instance_key, owner))
            continue
        place = place_of(cell)
        kept[cell] = (rest, replace(row, instance_key=place))
        if place != row.instance_key:
            moved[row.instance_key, owner] = place
    return Relocation(
        rows=tuple(row for _, row in kept.values()),
        parts=tuple(_laid_again(geometry, parts, shifts, kept)),
        moved=moved,
        dropped=tuple(dropped),
    )


def _ends(shift: Shift) -> tuple[Offset, Offset]:
    return shift.before, shift.after


def _in_cells(geometry: GridGeometry, offset: Offset) -> tuple[float, float]:
    return offset[0] / geometry.cell_w_px, offset[1] / geometry.cell_h_px


def _counted(
    kept: Mapping[Cell, tuple[tuple[float, float], InstanceRow]],
    cell: Cell,
    rest: tuple[float, float],
) -> bool:
    """Say whether a kept cell shows half of this one or more."""
    for di, dj in itertools.product((-1, 0, 1), repeat=2):
        other = kept.get((cell[0] + di, cell[1] + dj))
        if other is None:
            continue
        if di == dj == 0:
            return True
        across = max(0.0, 1 - abs(di + other[0][0] - rest[0]))
        down = max(0.0, 1 - abs(dj + other[0][1] - rest[1]))
        if across * down >= TWICE:
            return True
    return False


def _laid_again(
    geometry: GridGeometry,
    parts: Sequence[PartRow],
    shifts: Mapping[int, Shift],
    kept: Mapping[Cell, object],
) -> list[PartRow]:
    """Cut pixels that moved by the grid anew."""
    laid: list[PartRow] = []
    for row in parts:
        part, shift = part_from(row), shifts.get(row.sequence)
        if shift is None or shift.before == shift.after:
            if (part.i, part.j) not in kept:
                laid.append(row)
            continue
        box = geometry.box(part.i, part.j)
        x = box.x0 + part.x + shift.after[0] - shift.before[0]
        y = box.y0 + part.y + shift.after[1] - shift.before[1]
        height, width = part.pixels.shape[:2]
        laid.extend(
            part_row(row.sequence, _cut(geometry, cell, part, x, y))
            for cell in geometry.cells_touching(x, y, width, height)
            if cell not in kept
        )
    return laid


def _cut(geometry: GridGeometry, cell: Cell, part: CellPart, x: int, y: int) -> CellPart:
    """Return what pixels whose top left one lies at (x, y) show of a cell."""
    box, (height, width) = geometry.box(*cell), part.pixels.shape[:2]
    x0, x1 = max(box.x0, x), min(box.x1, x + width)
    y0, y1 = max(box.y0, y), min(box.y1, y + height)
    crop = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
    mask = None if part.mask is None else part.mask[crop].copy()
    pixels = part.pixels[crop].copy()
    return CellPart(*cell, x0 - box.x0, y0 - box.y0, pixels, part.sharpness, mask)
