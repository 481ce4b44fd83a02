"""Columns of stored rows as the values of `change`."""

from __future__ import annotations

import functools
import json

from edge_mil.store.change import FieldRow, InstanceKind, InstanceRow
from edge_mil.store.seal import Row


def field_row(row: Row) -> FieldRow:
    """Return an answered field."""
    return FieldRow(
        row["sequence"],
        row["verdict"],
        row["payload_crc"],
        row["header"],
        row["answer"],
        row.get("state"),
        bool(row["removed"]),
    )


def instance_row(row: Row) -> InstanceRow:
    """Return an instance; without its arrays where they were not read."""
    return InstanceRow(
        row["place"],
        row["sequence"],
        InstanceKind(row["kind"]),
        _sources(row["sources"]),
        row["note"],
        row.get("features"),
        row.get("attention_logits"),
    )


@functools.lru_cache(maxsize=4096)
def _sources(text: str) -> tuple[int, ...]:
    """Return the fields that gave a cell its pixels; the cells of one field have the same text."""
    return tuple(json.loads(text))


def links_of(text: str) -> tuple[tuple[int, float, float, float], ...]:
    """Return the registrations of a key frame."""
    return tuple((start, dx, dy, weight) for start, dx, dy, weight in json.loads(text))


def box_of(text: str) -> tuple[int, int, int, int]:
    """Return x, y, width and height."""
    x, y, width, height = json.loads(text)
    return x, y, width, height
