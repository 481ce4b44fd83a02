"""Reads one session's SQLite file; a call opens, reads and closes, or shares one snapshot."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

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
from edge_mil.store.connection import connect
from edge_mil.store.faults import UNREADABLE, store_error
from edge_mil.store.rows import box_of, field_row, instance_row, links_of
from edge_mil.store.seal import DamagedRowsError, Row, require_all, sealed_rows

SEALED_SINCE = 6
"""Schema version from which rows have digests; `SessionFolder.reader` migrates older files."""


class SessionReader:
    """A session's records, also while a service writes them.

    Every row is compared with its digest. What is not read is not compared: listings leave images
    and features out. `snapshot` reads several things as they were at one moment, with one
    connection.

    Every method raises DamagedStoreError where a row is not what was written, and StoreError where
    the file cannot be read.
    """

    _shared: sqlite3.Connection | None = None

    def __init__(self, path: str | Path) -> None:
        """Name the file.

        Raises:
            StoreError: There is no such file.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"There is no session file at {self.path}; check --state and the id.")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[SessionReader]:
        """Give a reader of the records as they are now, for one thread, to a short `with` block.

        A snapshot keeps the write-ahead log from being reset, so it must end soon.
        """
        if self._shared is not None:
            yield self
            return
        with self._reading() as connection:
            connection.execute("BEGIN")
            yield _Snapshot(self.path, connection)

    def schema_version(self) -> int:
        """Return how many of the store's migrations the file has."""
        with self._reading() as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def meta(self) -> dict[str, str]:
        """Return the session's names and values."""
        return {row["name"]: row["value"] for row in self._all("meta")}

    def fields(self, after: int = 0, count: int | None = None) -> list[FieldRow]:
        """Return fields without their states, in the order of sequence numbers.

        Args:
            after: Only those above this sequence number.
            count: How many at most; None for all.
        """
        with self._reading() as connection:
            limit = -1 if count is None else count
            rows = list(
                sealed_rows(
                    connection,
                    "field",
                    where="t.sequence > ?",
                    arguments=(after, limit),
                    order="t.sequence LIMIT ?",
                )
            )
            sealed = connection.execute(
                "SELECT number FROM seal WHERE kind = 'field' AND number > ? ORDER BY number"
                " LIMIT ?",
                (after, limit),
            )
            found = [row["sequence"] for row in rows]
            if [number for (number,) in sealed] != found:
                raise DamagedRowsError([("field", None, "")])
        return [field_row(row) for row in rows]

    def field(self, sequence: int) -> FieldRow | None:
        """Return one field without its state, None where there is no such field."""
        return next((field_row(row) for row in self._of("field", sequence)), None)

    def answer(self, sequence: int) -> bytes | None:
        """Return the stored answer of a field, None where there is no such field."""
        return next((row["answer"] for row in self._of("field", sequence)), None)

    def states(self) -> list[tuple[int, bytes]]:
        """Return (sequence, state) of the fields in the bag, in the order of sequence numbers."""
        return [
            (row["sequence"], row["state"])
            for row in self._all("field", bulk=True, order="t.sequence")
            if row["state"] is not None and not row["removed"]
        ]

    def instances(self, sequence: int | None = None, *, arrays: bool = True) -> list[InstanceRow]:
        """Return the rows of a field, or of all, ordered by field and instance key.

        Args:
            sequence: The field; None for all.
            arrays: False leaves features and logits out.
        """
        if sequence is None:
            rows = self._all("instance", bulk=arrays, order="t.sequence, t.place")
        else:
            rows = self._of("instance", sequence, bulk=arrays, order="t.place")
        return [instance_row(row) for row in rows]

    def features_between(self, first: int, last: int) -> list[tuple[int, str, bytes]]:
        """Return (sequence, instance key, features) of instances of the bag, in this order.

        Args:
            first: Smallest sequence number of their fields.
            last: Largest one.
        """
        with self._reading() as connection:
            rows = list(
                sealed_rows(
                    connection,
                    "instance",
                    bulk=True,
                    where="t.sequence BETWEEN ? AND ?",
                    arguments=(first, last),
                    order="t.sequence, t.place",
                )
            )
            require_all(connection, "instance", len(rows), first, last)
        held = int(InstanceKind.HELD)
        return [(r["sequence"], r["place"], r["features"]) for r in rows if r["kind"] == held]

    def parts(self) -> list[PartRow]:
        """Return the pixels of unfinished cells, in the order of arrival."""
        return [
            PartRow(
                row["place"], row["sequence"], box_of(row["box"]), row["pixels"], row["sharpness"]
            )
            for row in self._all("part", bulk=True, order="t.rowid")
        ]

    def key_frames(self) -> list[KeyFrameRow]:
        """Return the fields that others are localised by, in the order of sequence numbers."""
        return [
            KeyFrameRow(
                row["sequence"],
                row["x"],
                row["y"],
                tuple(json.loads(row["size"])),
                row["factor"],
                row["picture"],
                links_of(row["links"]),
            )
            for row in self._all("key_field", bulk=True, order="t.sequence")
        ]

    def key_frame_jpeg(self, sequence: int) -> bytes:
        """Return the stored image of a key frame.

        Raises:
            StoreError: It is not there, or cannot be read.
        """
        for row in self._of("key_field", sequence, bulk=True):
            return bytes(row["picture"])
        raise StoreError(f"The session's file has no image of key frame {sequence}.")

    def located(self) -> list[LocatedRow]:
        """Return the positions of fields without a stage, in the order of sequence numbers."""
        columns = ("sequence", "anchor", "dx", "dy", "x", "y")
        rows = self._all("located", order="t.sequence")
        return [LocatedRow(*(row[column] for column in columns)) for row in rows]

    def newest_positions(self) -> dict[int, tuple[float, float]]:
        """Return the newest position of each field without a stage: its key frame may have moved.

        Returns:
            Sequence -> lattice pixel (x, y) of the field's top left corner.
        """
        with self.snapshot() as records:
            located = records.located()
            keys = records.key_frame_positions() if located else {}
        return {
            row.sequence: (keys[row.anchor][0] + row.dx, keys[row.anchor][1] + row.dy)
            for row in located
            if row.anchor in keys
        }

    def key_frame_positions(self) -> dict[int, tuple[float, float]]:
        """Return sequence -> lattice pixel (x, y) of the top left corner of each key frame."""
        return {row["sequence"]: (row["x"], row["y"]) for row in self._all("key_field")}

    def geometry(self) -> list[GeometryRow]:
        """Return what each field says about stage and slide, in the order of arrival; no images."""
        return [
            GeometryRow(row["sequence"], row["evidence"], row["reference"])
            for row in self._all("geometry", order="t.number")
        ]

    def newest_reference(self) -> GeometryRow | None:
        """Return the newest row with the image of a refused field; None where there is none."""
        with self._reading() as connection:
            where, order = "length(t.image) > 0", "t.number DESC LIMIT 1"
            rows = sealed_rows(connection, "geometry", bulk=True, where=where, order=order)
            columns = ("sequence", "evidence", "reference", "image")
            return next((GeometryRow(*(row[c] for c in columns)) for row in rows), None)

    def attachment(self, name: str) -> bytes | None:
        """Return bytes that the session keeps whole, None where there are none of that name."""
        found = {row["name"]: row["data"] for row in self._all("attachment", bulk=True)}
        return found.get(name)

    def thumbnail(self, sequence: int) -> bytes | None:
        """Return the JPEG of a field, None where it has none."""
        return next((row["jpeg"] for row in self._of("thumbnail", sequence, bulk=True)), None)

    def fields_with_thumbnail(self) -> list[tuple[int, str]]:
        """Return (sequence, header) of the fields that have a thumbnail and were not removed."""
        with self.snapshot() as records:
            kept = records.thumbnails()
            return [
                (row.sequence, row.header)
                for row in records.fields()
                if row.sequence in kept and not row.removed
            ]

    def thumbnails(self) -> set[int]:
        """Return the fields that have a thumbnail."""
        with self._reading() as connection:
            sealed = connection.execute("SELECT number FROM seal WHERE kind = 'thumbnail'")
            return {number for (number,) in sealed}

    def events(self) -> list[tuple[float, str, str]]:
        """Return what was done by hand: (seconds since the epoch, kind, JSON)."""
        rows = self._all("event", order="t.number")
        return [(row["time"], row["kind"], row["body"]) for row in rows]

    def _all(self, name: str, *, bulk: bool = False, order: str = "") -> list[Row]:
        """Return every row of a table."""
        with self._reading() as connection:
            rows = list(sealed_rows(connection, name, bulk=bulk, order=order))
            require_all(connection, name, len(rows))
        return rows

    def _of(self, name: str, number: int, *, bulk: bool = False, order: str = "") -> list[Row]:
        """Return the rows of one field."""
        with self._reading() as connection:
            where = "t.sequence = ?"
            rows = list(
                sealed_rows(
                    connection, name, bulk=bulk, where=where, arguments=(number,), order=order
                )
            )
            require_all(connection, name, len(rows), number, number)
        return rows

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Open, read, close: a reader that stays open would keep the log from being reset."""
        try:
            if self._shared is not None:
                yield self._shared
            else:
                with contextlib.closing(connect(self.path)) as connection:
                    yield connection
        except (*UNREADABLE, DamagedRowsError) as error:
            raise store_error(self.path, error) from error


class _Snapshot(SessionReader):
    """Reads with a connection that is open already."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._shared = path, connection
