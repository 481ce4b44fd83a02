"""Cells, their parts and key frames as rows of the session's file."""

from __future__ import annotations

import json
import math

import msgspec

from edge_mil.imaging import Cell, CellPart, ViewSharpness
from edge_mil.imaging.registration import KeyFrame, PoseEdge
from edge_mil.store import KeyFrameRow, PartRow


def key_of(cell: Cell) -> str:
    """Return the instance key of a cell, as "3:-1" for column 3 and row -1."""
    return f"{cell[0]}:{cell[1]}"


def cell_of(key: str) -> Cell:
    """Return the cell of an instance key."""
    column, row = key.split(":")
    return int(column), int(row)


def note_of(seen: tuple[ViewSharpness, ...]) -> str:
    """Return how sharp each part of a cell was, as JSON; null for a part that was not measured."""
    return json.dumps(
        [
            [p.x, p.y, p.width_px, p.height_px, p.sharpness if math.isfinite(p.sharpness) else None]
            for p in seen
        ]
    )


def seen_in(note: str) -> tuple[ViewSharpness, ...]:
    """Return what `note_of` wrote."""
    rows = msgspec.json.decode(note) if note else []
    return tuple(ViewSharpness(x, y, w, h, math.nan if s is None else s) for x, y, w, h, s in rows)


def part_row(sequence: int, part: CellPart) -> PartRow:
    """Return the row of the pixels that a field gave to an unfinished cell."""
    height, width = part.pixels.shape[:2]
    box = (part.x, part.y, width, height)
    sharpness = part.sharpness if math.isfinite(part.sharpness) else None
    return PartRow(key_of((part.i, part.j)), sequence, box, part.to_bytes(), sharpness)


def part_from(row: PartRow) -> CellPart:
    """Return what `part_row` wrote."""
    sharpness = math.nan if row.sharpness is None else row.sharpness
    return CellPart.from_bytes(cell_of(row.instance_key), row.box, row.pixels, sharpness)


def key_frame_row(key: KeyFrame) -> KeyFrameRow:
    """Return the row of a key frame."""
    links = tuple((edge.start, edge.dx, edge.dy, edge.weight) for edge in key.edges)
    size = (key.width_px, key.height_px)
    return KeyFrameRow(key.sequence, key.x, key.y, size, key.factor, key.jpeg, links)


def key_frame_from(row: KeyFrameRow) -> KeyFrame:
    """Return what `key_frame_row` wrote."""
    edges = tuple(PoseEdge(start, row.sequence, dx, dy, w) for start, dx, dy, w in row.links)
    return KeyFrame(row.sequence, row.x, row.y, *row.size, row.factor, row.jpeg, edges)
