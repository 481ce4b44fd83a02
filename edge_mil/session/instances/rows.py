"""How cells and their parts are written in the session's file."""

from __future__ import annotations

import json
import math

from edge_mil.imaging import Cell, CellPart, ViewSharpness
from edge_mil.store import PartRow


def place_of(cell: Cell) -> str:
    """Return the key of a cell."""
    return f"{cell[0]}:{cell[1]}"


def cell_of(place: str) -> Cell:
    """Return the cell of a key."""
    column, row = place.split(":")
    return int(column), int(row)


def note_of(seen: tuple[ViewSharpness, ...]) -> str:
    """Return how a cell's parts were seen, as the store keeps it; null was not judged."""
    return json.dumps(
        [
            [p.x, p.y, p.width_px, p.height_px, p.sharpness if math.isfinite(p.sharpness) else None]
            for p in seen
        ]
    )


def seen_in(note: str) -> tuple[ViewSharpness, ...]:
    """Return what `note_of` wrote."""
    rows = json.loads(note) if note else []
    return tuple(ViewSharpness(x, y, w, h, math.nan if s is None else s) for x, y, w, h, s in rows)


def part_row(sequence: int, part: CellPart) -> PartRow:
    """Return the row of a part that a field gave."""
    height, width = part.pixels.shape[:2]
    box = (part.x, part.y, width, height)
    sharpness = part.sharpness if math.isfinite(part.sharpness) else None
    return PartRow(place_of((part.i, part.j)), sequence, box, part.to_bytes(), sharpness)


def part_from(row: PartRow) -> CellPart:
    """Return what `part_row` wrote."""
    sharpness = math.nan if row.sharpness is None else row.sharpness
    return CellPart.from_bytes(cell_of(row.instance_key), row.box, row.pixels, sharpness)
