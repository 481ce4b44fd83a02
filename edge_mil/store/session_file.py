"""Writes one session's SQLite file, through the thread that commits for all sessions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Future
from importlib import resources
from pathlib import Path

from edge_mil.errors import StoreBusyError, StoreError
from edge_mil.store.change import Change, InstanceRow, KeyFrameRow, PartRow
from edge_mil.store.committer import Committer
from edge_mil.store.connection import connect
from edge_mil.store.digest import with_own_digest
from edge_mil.store.faults import UNREADABLE, store_error
from edge_mil.store.seal import insert, seal_all, update
from edge_mil.store.session_reader import SEALED_SINCE, SessionReader

SCHEMA = (
    "0001_session.sql",
    "0002_sharpness.sql",
    "0003_attachment.sql",
    "0004_located.sql",
    "0005_geometry.sql",
    "0006_seal.sql",
)
"""Migrations in order; `user_version` counts those that a file has."""
FIRST_META = "first_meta"
"""Attachment: the meta table as the session began, in case a page of the table is lost."""


class SessionFile(SessionReader):
    """A session's records; `append` is durable when its future is done.

    WAL with synchronous=FULL: of 13 326 acknowledged records none was lost in 22 power cuts,
    with NORMAL 141 of 22 337 (`docs/design/serving-and-durability.md`, "Power cuts").
    """

    def __init__(self, path: str | Path, committer: Committer | None = None) -> None:
        """Open the file, making it and its folder where there is none.

        Args:
            path: The file.
            committer: Commits for this file and others; None: one of its own.

        Raises:
            StoreError: It cannot be made or read, is of a newer edge_mil, is damaged or in use.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Made 0600 before SQLite does: -wal and -shm take the mode of the main file.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._lock = FileLock(self.path.with_suffix(".lock"))
        except OSError as error:
            raise store_error(self.path, error) from error
        try:
            writer = open_database(self.path)
        except UNREADABLE as error:
            self._lock.release()
            raise store_error(self.path, error) from error
        except BaseException:
            self._lock.release()
            raise
        self._closed = False
        self._own = session_committer() if committer is None else None
        shared = committer or self._own
        assert shared is not None
        self._changes = shared.add(self.path, writer, lambda: connect(self.path))

    # Writing

    def append(self, change: Change) -> Future[None]:
        """Queue a change; the future is done when it is durable, or holds a StoreError.

        After one failure every later change fails too: the file must be opened again, so that
        what is in memory and what is on disk agree.
        """
        return self._changes.append(change)

    def flush(self) -> None:
        """Wait until all that was appended is durable.

        Raises:
            StoreError: Some of it could not be written.
        """
        self.append(Change()).result()

    def close(self) -> None:
        """Write what is queued, fold the log into the file and unlock it."""
        if self._closed:
            return
        self._closed = True
        self._changes.close()
        if self._own is not None:
            self._own.close()
        with contextlib.suppress(*UNREADABLE), contextlib.closing(connect(self.path)) as last:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._lock.release()


class FileLock:
    """Keeps a second process off the file; advisory, and free again when its process ends."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            import fcntl

            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # no such lock on Windows; the port of the service is the guard there
        except OSError:
            os.close(self._fd)
            raise StoreBusyError(
                f"The session in {path.parent} is open in another process; stop that service, or "
                "ask it for the session."
            ) from None

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_database(path: Path) -> sqlite3.Connection:
    """Return a connection to a file of the newest schema; it is made, or migrated, where it is not.

    Raises:
        StoreError: The file is of a newer edge_mil.
        sqlite3.Error: It cannot be opened or written.
    """
    connection = connect(path)
    try:
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(SCHEMA):
        raise StoreError(
            f"The session file {path} was written by a newer edge_mil (schema {version}, this one "
            f"reads up to {len(SCHEMA)}); update edge_mil on this device."
        )
    if version == len(SCHEMA):
        return
    folder = resources.files("edge_mil.store") / "schema"
    # In one transaction: a file is of one release, or of the other.
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name in SCHEMA[version:]:
            for statement in _statements((folder / name).read_text(encoding="utf-8")):
                connection.execute(statement)
        if version < SEALED_SINCE:
            seal_all(connection)
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            if meta:
                insert(connection, "attachment", [(FIRST_META, with_own_digest(meta))])
        connection.execute(f"PRAGMA user_version={len(SCHEMA)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def session_committer() -> Committer:
    """Return what commits for session files, with its two threads; the caller closes it."""
    return Committer(_apply)


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    """Write one change; every row through `seal`, which keeps its digest."""
    run_many = connection.executemany
    if change.field is not None:
        f = change.field
        row = (
            f.sequence, f.verdict, f.payload_crc, f.header, f.answer, f.state, int(f.removed)
        )  # fmt: skip
        insert(connection, "field", [row])
        if change.thumbnail:
            insert(connection, "thumbnail", [(f.sequence, change.thumbnail)])
    run_many("DELETE FROM instance WHERE place = ?", [(key,) for key in change.dropped_keys])
    run_many("DELETE FROM instance WHERE place = ? AND sequence = ?", change.dropped)
    _move(connection, change)
    insert(connection, "instance", map(_instance, change.instances), replace=True)
    for (key, sequence), kind in change.kinds.items():
        update(connection, "instance", sequence, key, kind=int(kind))
    run_many("DELETE FROM part WHERE place = ?", [(key,) for key in change.finished_keys])
    _write_parts(connection, change.parts)
    for sequence, state in change.states.items():
        update(connection, "field", sequence, state=state)
    if change.removed is not None:
        connection.execute("DELETE FROM part WHERE sequence = ?", (change.removed,))
        update(connection, "field", change.removed, removed=1, state=None)
    if change.geometry is not None:
        insert(connection, "geometry", [(None, *dataclasses.astuple(change.geometry))])
    if change.event is not None:
        insert(connection, "event", [(None, time.time(), *change.event)])
    insert(connection, "meta", change.meta.items(), replace=True)
    insert(connection, "attachment", change.attachments.items())


def _move(connection: sqlite3.Connection, change: Change) -> None:
    """Write positions of fields and key frames, and new keys of rows that moved with them."""
    insert(connection, "key_field", map(_key_frame, change.key_frames))
    for sequence, (x, y) in change.key_frame_positions.items():
        update(connection, "key_field", sequence, x=float(x), y=float(y))
    if change.located is not None:
        at = change.located
        row = (at.sequence, at.anchor, float(at.dx), float(at.dy), at.x, at.y)
        insert(connection, "located", [row])
    # In two steps: the new key of one cell is the old one of its neighbour.
    for (old, sequence), new in change.moved.items():
        update(connection, "instance", sequence, old, place=f">{new}")
    for (_, sequence), new in change.moved.items():
        update(connection, "instance", sequence, f">{new}", place=new)
    if change.replaced_parts is not None:
        connection.execute("DELETE FROM part")
        _write_parts(connection, change.replaced_parts)


def _write_parts(connection: sqlite3.Connection, parts: tuple[PartRow, ...]) -> None:
    insert(
        connection,
        "part",
        (
            (
                p.instance_key,
                p.sequence,
                json.dumps(p.box),
                p.pixels,
                None if p.sharpness is None else float(p.sharpness),
            )
            for p in parts
        ),
    )


def _instance(i: InstanceRow) -> tuple[object, ...]:
    sources = json.dumps(i.sources)
    key, kind = i.instance_key, int(i.kind)
    return key, i.sequence, kind, sources, i.note, i.features, i.attention_logits


def _key_frame(k: KeyFrameRow) -> tuple[object, ...]:
    size, links = json.dumps(k.size), json.dumps(k.links)
    return k.sequence, float(k.x), float(k.y), size, k.factor, k.jpeg, links
