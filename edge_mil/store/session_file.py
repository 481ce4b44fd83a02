"""Writes one session's SQLite file, in a thread of its own; a second thread makes checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from importlib import resources
from pathlib import Path

from edge_mil.errors import StoreError
from edge_mil.store.change import Change, PartRow
from edge_mil.store.session_reader import SessionReader

SCHEMA = (
    "0001_session.sql",
    "0002_sharpness.sql",
    "0003_attachment.sql",
    "0004_located.sql",
    "0005_geometry.sql",
)
"""Migrations in order; `user_version` counts those that a file has."""
GROUP = 16
"""Changes of one transaction at most: 4 cost 1.5 times one
(`docs/design/serving-and-durability.md`, "Group commit")."""
CHECKPOINT_S = 0.5
"""Pause between checkpoints. In a thread of their own: within a commit they are all of its p99."""


class SessionFile(SessionReader):
    """A session's records; `append` is durable when its future is done.

    WAL with synchronous=FULL: of 13 326 acknowledged records none was lost in 22 power cuts,
    with NORMAL 141 of 22 337 (`docs/design/serving-and-durability.md`, "Power cuts").
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file, making it and its folder where there is none.

        Raises:
            StoreError: It cannot be made or read, is of a newer edge_mil, or is in use.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Made 0600 before SQLite does: -wal and -shm take the mode of the main file.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._lock = _Lock(self.path.with_suffix(".lock"))
        except OSError as error:
            raise StoreError(
                f"The session file {self.path} cannot be opened ({error.strerror}); check the "
                "folder's rights and free space, or name another --state."
            ) from error
        try:
            writer = self._connect()
            _migrate(writer, self.path)
        except sqlite3.Error as error:
            self._lock.release()
            raise StoreError(f"The session file {self.path} cannot be read ({error}).") from error
        except StoreError:
            self._lock.release()
            raise
        self._queue: queue.SimpleQueue[tuple[Change, Future[None]] | None] = queue.SimpleQueue()
        self._failed: StoreError | None = None
        self._stop = threading.Event()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._write, args=(writer,), name="session-writer"),
            threading.Thread(target=self._checkpoint, name="session-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    # Writing

    def append(self, change: Change) -> Future[None]:
        """Queue a change; the future is done when it is durable, or holds a StoreError.

        After one failure every later change fails too: the file must be opened again, so that
        what is in memory and what is on disk agree.
        """
        future: Future[None] = Future()
        if self._closed:
            future.set_exception(StoreError(f"The session file {self.path} is closed."))
        else:
            self._queue.put((change, future))
        return future

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
        self._queue.put(None)
        self._stop.set()
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as last:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._lock.release()

    def _write(self, connection: sqlite3.Connection) -> None:
        running = True
        while running:
            group = [self._queue.get()]
            while len(group) < GROUP:
                try:
                    group.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            running = None not in group
            self._commit(connection, [item for item in group if item is not None])
        connection.close()

    def _commit(
        self, connection: sqlite3.Connection, group: list[tuple[Change, Future[None]]]
    ) -> None:
        if self._failed is None and group:
            try:
                connection.execute("BEGIN IMMEDIATE")
                for change, _ in group:
                    _apply(connection, change)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                # A full disk has rolled the transaction back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._failed = StoreError(
                    f"The session file {self.path} cannot be written ({error}); free some space, "
                    "then resume the session: nothing that was acknowledged is lost."
                )
        for _, future in group:
            if self._failed is None:
                future.set_result(None)
            else:
                future.set_exception(self._failed)

    def _checkpoint(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            while not self._stop.wait(CHECKPOINT_S):
                with contextlib.suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class _Lock:
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
            raise StoreError(
                f"The session in {path.parent} is open in another process; stop that service, or "
                "ask it for the session."
            ) from None

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(SCHEMA):
        raise StoreError(
            f"The session file {path} was written by a newer edge_mil (schema {version}, this one "
            f"reads up to {len(SCHEMA)}); update edge_mil on this device."
        )
    folder = resources.files("edge_mil.store") / "schema"
    for number, name in enumerate(SCHEMA[version:], start=version + 1):
        script = (folder / name).read_text(encoding="utf-8")
        connection.executescript(f"BEGIN;{script};PRAGMA user_version={number};COMMIT;")


def _move(connection: sqlite3.Connection, change: Change) -> None:
    """Write positions of fields and key frames, and new keys of rows that moved with them."""
    run_many = connection.executemany
    run_many(
        "INSERT INTO key_field VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (k.sequence, k.x, k.y, json.dumps(k.size), k.factor, k.jpeg, json.dumps(k.links))
            for k in change.key_frames
        ],
    )
    run_many(
        "UPDATE key_field SET x = ?, y = ? WHERE sequence = ?",
        [(x, y, sequence) for sequence, (x, y) in change.key_frame_positions.items()],
    )
    if change.located is not None:
        row = dataclasses.astuple(change.located)
        connection.execute("INSERT INTO located VALUES (?, ?, ?, ?, ?, ?)", row)
    # In two steps: the new key of one cell is the old one of its neighbour.
    run_many(
        "UPDATE instance SET place = '>' || ? WHERE place = ? AND sequence = ?",
        [(new, old, sequence) for (old, sequence), new in change.moved.items()],
    )
    if change.moved:
        connection.execute("UPDATE instance SET place = substr(place, 2) WHERE place LIKE '>%'")
    if change.replaced_parts is not None:
        connection.execute("DELETE FROM part")
        _write_parts(connection, change.replaced_parts)


def _write_parts(connection: sqlite3.Connection, parts: tuple[PartRow, ...]) -> None:
    connection.executemany(
        "INSERT INTO part VALUES (?, ?, ?, ?, ?)",
        [(p.instance_key, p.sequence, json.dumps(p.box), p.pixels, p.sharpness) for p in parts],
    )


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    run, run_many = connection.execute, connection.executemany
    if change.field is not None:
        f = change.field
        run(
            "INSERT INTO field VALUES (?, ?, ?, ?, ?, ?, ?)",
            (f.sequence, f.verdict, f.payload_crc, f.header, f.answer, f.state, f.removed),
        )
        if change.thumbnail:
            run("INSERT INTO thumbnail VALUES (?, ?)", (f.sequence, change.thumbnail))
    for key in change.dropped_keys:
        run("DELETE FROM instance WHERE place = ?", (key,))
    run_many("DELETE FROM instance WHERE place = ? AND sequence = ?", change.dropped)
    _move(connection, change)
    run_many(
        "INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                i.instance_key,
                i.sequence,
                int(i.kind),
                json.dumps(i.sources),
                i.note,
                i.features,
                i.attention_logits,
            )
            for i in change.instances
        ],
    )
    run_many(
        "UPDATE instance SET kind = ? WHERE place = ? AND sequence = ?",
        [(int(kind), *row) for row, kind in change.kinds.items()],
    )
    run_many("DELETE FROM part WHERE place = ?", [(key,) for key in change.finished_keys])
    _write_parts(connection, change.parts)
    run_many(
        "UPDATE field SET state = ? WHERE sequence = ?",
        [(state, sequence) for sequence, state in change.states.items()],
    )
    if change.removed is not None:
        run("DELETE FROM part WHERE sequence = ?", (change.removed,))
        run("UPDATE field SET removed = 1, state = NULL WHERE sequence = ?", (change.removed,))
    if change.geometry is not None:
        run(
            "INSERT INTO geometry (sequence, evidence, reference, image) VALUES (?, ?, ?, ?)",
            dataclasses.astuple(change.geometry),
        )
    if change.event is not None:
        run("INSERT INTO event (time, kind, body) VALUES (?, ?, ?)", (time.time(), *change.event))
    run_many("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(change.meta.items()))
    run_many("INSERT INTO attachment VALUES (?, ?)", list(change.attachments.items()))
