"""Reads one session's SQLite file; every call opens, reads and closes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_mil.errors import StoreError
from edge_mil.store.change import (
    FieldRow,
    GeometryRow,
    InstanceKind,
    InstanceRow,
    KeyFrameRow,
    LocatedRow,
    PartRow,
)

BUSY_S = 5.0
"""How long to wait for another connection's lock."""


class SessionReader:
    """A session's records, also while a service writes them."""

    def __init__(self, path: str | Path) -> None:
        """Name the file.

        Raises:
            StoreError: There is no such file.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"There is no session file at {self.path}; check --state and the id.")

    def schema_version(self) -> int:
        """Return how many of the store's migrations the file has."""
        return int(self._rows("PRAGMA user_version")[0][0])

    def meta(self) -> dict[str, str]:
        """Return the session's names and values."""
        return dict(self._rows("SELECT name, value FROM meta"))

    def fields(self) -> list[FieldRow]:
        """Return every field, in the order of sequence numbers, without its state."""
        rows = self._rows(
            "SELECT sequence, verdict, payload_crc, header, answer, NULL, removed FROM field"
            " ORDER BY sequence"
        )
        return [FieldRow(r[0], r[1], r[2], r[3], r[4], r[5], bool(r[6])) for r in rows]

    def answer(self, sequence: int) -> bytes | None:
        """Return the stored answer of a field, None where there is no such field."""
        rows = self._rows("SELECT answer FROM field WHERE sequence = ?", sequence)
        return next((row[0] for row in rows), None)

    def states(self) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, state) of the fields in the bag, in the order of sequence numbers."""
        yield from self._rows(
            "SELECT sequence, state FROM field WHERE state IS NOT NULL AND NOT removed"
            " ORDER BY sequence"
        )

    def instances(self, sequence: int | None = None, *, arrays: bool = True) -> list[InstanceRow]:
        """Return the rows of a field, or of all, ordered by field and instance key.

        Args:
            sequence: The field; None for all.
            arrays: False leaves features and logits out.
        """
        columns = "features, attention_logits" if arrays else "NULL, NULL"
        where = "" if sequence is None else "WHERE sequence = ?"
        rows = self._rows(
            f"SELECT place, sequence, kind, sources, note, {columns} FROM instance {where}"  # noqa: S608 - no user text
            " ORDER BY sequence, place",
            *(() if sequence is None else (sequence,)),
        )
        return [
            InstanceRow(r[0], r[1], InstanceKind(r[2]), tuple(json.loads(r[3])), *r[4:])
            for r in rows
        ]

    def parts(self) -> list[PartRow]:
        """Return the pixels of unfinished cells, in the order of arrival."""
        rows = self._rows("SELECT place, sequence, box, pixels, sharpness FROM part ORDER BY rowid")
        return [PartRow(r[0], r[1], _box(r[2]), r[3], r[4]) for r in rows]

    def key_frames(self) -> list[KeyFrameRow]:
        """Return the fields that others are localised by, in the order of sequence numbers."""
        rows = self._rows(
            "SELECT sequence, x, y, size, factor, picture, links FROM key_field ORDER BY sequence"
        )
        return [
            KeyFrameRow(r[0], r[1], r[2], tuple(json.loads(r[3])), r[4], r[5], _links(r[6]))
            for r in rows
        ]

    def key_frame_jpeg(self, sequence: int) -> bytes:
        """Return the stored image of a key frame.

        Raises:
            StoreError: It is not there, or cannot be read.
        """
        rows = self._rows("SELECT picture FROM key_field WHERE sequence = ?", sequence)
        for row in rows:
            return bytes(row[0])
        raise StoreError(f"The session's file has no image of key frame {sequence}.")

    def located(self) -> list[LocatedRow]:
        """Return the positions of fields without a stage, in the order of sequence numbers."""
        rows = self._rows("SELECT sequence, anchor, dx, dy, x, y FROM located ORDER BY sequence")
        return [LocatedRow(*row) for row in rows]

    def newest_positions(self) -> dict[int, tuple[float, float]]:
        """Return the newest position of each field without a stage: its key frame may have moved.

        Returns:
            Sequence -> lattice pixel (x, y) of the field's top left corner.
        """
        rows = self._rows(
            "SELECT l.sequence, k.x + l.dx, k.y + l.dy FROM located l"
            " JOIN key_field k ON k.sequence = l.anchor"
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def geometry(self) -> list[GeometryRow]:
        """Return what each field says about stage and slide, in the order of arrival; no images."""
        rows = self._rows("SELECT sequence, evidence, reference FROM geometry ORDER BY number")
        return [GeometryRow(*row) for row in rows]

    def newest_reference(self) -> GeometryRow | None:
        """Return the newest row with the image of a refused field; None where there is none."""
        rows = self._rows(
            "SELECT sequence, evidence, reference, image FROM geometry WHERE length(image) > 0"
            " ORDER BY number DESC LIMIT 1"
        )
        return next((GeometryRow(*row) for row in rows), None)

    def attachment(self, name: str) -> bytes | None:
        """Return bytes that the session keeps whole, None where there are none of that name."""
        rows = self._rows("SELECT data FROM attachment WHERE name = ?", name)
        return next((row[0] for row in rows), None)

    def thumbnail(self, sequence: int) -> bytes | None:
        """Return the JPEG of a field, None where it has none."""
        rows = self._rows("SELECT jpeg FROM thumbnail WHERE sequence = ?", sequence)
        return next((row[0] for row in rows), None)

    def fields_with_thumbnail(self) -> list[tuple[int, str]]:
        """Return (sequence, header) of the fields that have a thumbnail and were not removed."""
        rows = self._rows(
            "SELECT sequence, header FROM field JOIN thumbnail USING (sequence) WHERE NOT removed"
            " ORDER BY sequence"
        )
        return [(row[0], row[1]) for row in rows]

    def events(self) -> list[tuple[float, str, str]]:
        """Return what was done by hand: (seconds since the epoch, kind, JSON)."""
        return [tuple(r) for r in self._rows("SELECT time, kind, body FROM event ORDER BY number")]

    def _rows(self, sql: str, *arguments: object) -> list[Any]:
        """Open, read, close: a reader that stays open would keep the log from being reset."""
        try:
            with contextlib.closing(self._connect()) as connection:
                return connection.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"The session file {self.path} cannot be read ({error}).") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_S
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=0",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection


def _links(text: str) -> tuple[tuple[int, float, float, float], ...]:
    return tuple((start, dx, dy, weight) for start, dx, dy, weight in json.loads(text))


def _box(text: str) -> tuple[int, int, int, int]:
    x, y, width, height = json.loads(text)
    return x, y, width, height
