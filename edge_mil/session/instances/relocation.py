"""Move the instances that are held when a loop closes and fields turn out to lie elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_mil.imaging import Cell, CellPart, GridGeometry
from edge_mil.session.instances.base import InstanceId, Shift
from edge_mil.session.instances.rows import cell_of, key_of, part_from, part_row
from edge_mil.store import InstanceRow, PartRow

COUNTED_TWICE = 0.5
"""Share of its area that a cell may have in common with another one before both are the same."""

NOT_MOVED = Shift((0, 0), (0, 0))

Residue = tuple[float, float]
"""How far a moved cell lies from its grid cell, in cells along x and y, -0.5 to 0.5."""


@dataclass(frozen=True, slots=True, eq=False)
class Relocation:
    """The records after a loop was closed.

    Attributes:
        rows: All cells, under their new keys.
        parts: All pixels of unfinished cells, cut for their new cells, in the order of arrival.
        moved: Instance -> its new key, of the cells that change theirs.
        dropped: Instances that were counted twice.
    """

    rows: tuple[InstanceRow, ...]
    parts: tuple[PartRow, ...]
    moved: Mapping[InstanceId, str]
    dropped: tuple[InstanceId, ...]


def relocate(
    geometry: GridGeometry,
    rows: Sequence[InstanceRow],
    parts: Sequence[PartRow],
    shifts: Mapping[int, Shift],
) -> Relocation:
    """Move cells and pixels with the fields that they came from.

    A cell keeps its pixels and goes to the nearest cell of the grid, so it lies within half a cell
    of what its key says. Of two cells that share half of their area or more, one was counted
    twice: the one that lies nearer to its grid cell stays, of equals the older.

    Args:
        geometry: The session's grid.
        rows: All cells of the session, with and without tissue.
        parts: All pixels of unfinished cells.
        shifts: Sequence -> shift of that field; fields that are not named did not move.
    """
    # 1. Where each cell would go, and how far from the grid's cell it would lie.
    candidates: list[tuple[float, int, Cell, Residue, InstanceRow]] = []
    for row in rows:
        shift = shifts.get(row.sequence, NOT_MOVED)
        i, j = cell_of(row.instance_key)
        old, new = _in_cells(geometry, shift.before), _in_cells(geometry, shift.after)
        cell = (i + round(new[0]) - round(old[0]), j + round(new[1]) - round(old[1]))
        residue = (new[0] - round(new[0]), new[1] - round(new[1]))
        distance = max(abs(residue[0]), abs(residue[1]))
        candidates.append((distance, row.sequence, cell, residue, row))
    # 2. The best aligned first: each cell stays unless a better one shows the same area.
    moved: dict[InstanceId, str] = {}
    kept: dict[Cell, tuple[Residue, InstanceRow]] = {}
    dropped: list[InstanceId] = []
    for _, owner, cell, residue, row in sorted(candidates, key=lambda c: (c[0], c[1], c[2])):
        if _is_counted(kept, cell, residue):
            dropped.append((row.instance_key, owner))
            continue
        key = key_of(cell)
        kept[cell] = (residue, replace(row, instance_key=key))
        if key != row.instance_key:
            moved[row.instance_key, owner] = key
    return Relocation(
        rows=tuple(row for _, row in kept.values()),
        parts=tuple(_moved_parts(geometry, parts, shifts, kept)),
        moved=moved,
        dropped=tuple(dropped),
    )


def _in_cells(geometry: GridGeometry, offset_px: tuple[int, int]) -> tuple[float, float]:
    return offset_px[0] / geometry.cell_w_px, offset_px[1] / geometry.cell_h_px


def _is_counted(
    kept: Mapping[Cell, tuple[Residue, InstanceRow]], cell: Cell, residue: Residue
) -> bool:
    """Say whether a kept cell shows half of this one or more."""
    for di, dj in itertools.product((-1, 0, 1), repeat=2):
        other = kept.get((cell[0] + di, cell[1] + dj))
        if other is None:
            continue
        if di == dj == 0:
            return True
        width = max(0.0, 1 - abs(di + other[0][0] - residue[0]))
        height = max(0.0, 1 - abs(dj + other[0][1] - residue[1]))
        if width * height >= COUNTED_TWICE:
            return True
    return False


def _moved_parts(
    geometry: GridGeometry,
    parts: Sequence[PartRow],
    shifts: Mapping[int, Shift],
    kept: Mapping[Cell, object],
) -> list[PartRow]:
    """Return the pixels of unfinished cells, cut anew along the grid where they moved."""
    found: list[PartRow] = []
    for row in parts:
        part, shift = part_from(row), shifts.get(row.sequence)
        if shift is None or shift.before == shift.after:
            if (part.i, part.j) not in kept:
                found.append(row)
            continue
        box = geometry.box(part.i, part.j)
        x = box.x0 + part.x + shift.after[0] - shift.before[0]
        y = box.y0 + part.y + shift.after[1] - shift.before[1]
        height, width = part.pixels.shape[:2]
        found.extend(
            part_row(row.sequence, _crop(geometry, cell, part, x, y))
            for cell in geometry.cells_touching(x, y, width, height)
            if cell not in kept
        )
    return found


def _crop(geometry: GridGeometry, cell: Cell, part: CellPart, x: int, y: int) -> CellPart:
    """Return what a cell gets of pixels whose top left one lies at (x, y)."""
    box, (height, width) = geometry.box(*cell), part.pixels.shape[:2]
    x0, x1 = max(box.x0, x), min(box.x1, x + width)
    y0, y1 = max(box.y0, y), min(box.y1, y + height)
    crop = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
    mask = None if part.mask is None else part.mask[crop].copy()
    pixels = part.pixels[crop].copy()
    return CellPart(*cell, x0 - box.x0, y0 - box.y0, pixels, part.sharpness, mask)
