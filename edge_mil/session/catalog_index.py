"""An index of the sessions of a state directory: a cache, made anew where it is missing or wrong.

Without it each look for a request id, and each list, would open every session's file: 3 000 took
more than eight seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mil.errors import SessionNotFoundError, StoreError
from edge_mil.store.digest import digest_of
from edge_mil.store.faults import UNREADABLE, store_error

VERSION = 1
"""`user_version` of the index; another one is made anew."""
COLUMNS = ("id", "request_id", "bundle_name", "bundle_digest", "settings", "created", "closed")
SCHEMA = """
CREATE TABLE session (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL, bundle_name TEXT NOT NULL,
    bundle_digest TEXT NOT NULL, settings TEXT NOT NULL, created REAL NOT NULL,
    closed INTEGER NOT NULL, problem TEXT NOT NULL, digest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_of_request ON session (request_id);
"""
BUSY_S = 5.0
"""How long to wait for another process that writes the index."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One session as the index has it.

    Attributes:
        session_id: Its id.
        request_id: The client's idempotency key; "" for none.
        bundle_name: Name of its bundle.
        bundle_digest: Digest of the same.
        settings: `SessionSettings.to_json`; "" where its file could not be read.
        created: Seconds since the epoch.
        closed: Whether it was closed when the row was written.
        problem: Why its file cannot be used; "" where it can.
    """

    session_id: str
    request_id: str = ""
    bundle_name: str = ""
    bundle_digest: str = ""
    settings: str = ""
    created: float = 0.0
    closed: bool = False
    problem: str = ""


class SessionIndex:
    """Knows the sessions of one folder; from any thread and any process."""

    def __init__(
        self, folder: Path, ids: Callable[[], list[str]], read: Callable[[str], IndexRow]
    ) -> None:
        """Name the folder of the sessions; nothing is read yet.

        Args:
            folder: The sessions' folders lie in it, and `index.db`.
            ids: Returns the ids of all sessions in the folder.
            read: Returns what a session's own file says.
        """
        self._folder, self._ids, self._read = folder, ids, read
        self._path = folder / "index.db"

    def refresh(self) -> None:
        """Read the sessions that the index lacks, and forget those that are gone.

        Raises:
            StoreError: The index cannot be written.
        """
        ids = self._ids()
        if not ids and not self._path.is_file():
            return
        with self._open() as connection:
            known = {row[0] for row in connection.execute("SELECT id FROM session")}
        gone = known.difference(ids)
        new = [self.read(session_id) for session_id in ids if session_id not in known]
        if not gone and not new:
            return
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM session WHERE id = ?", [(i,) for i in gone])
            for row in new:
                _put(connection, row)
            connection.execute("COMMIT")

    def put(self, row: IndexRow) -> None:
        """Write one row.

        Raises:
            StoreError: It cannot be written.
        """
        with self._open() as connection:
            _put(connection, row)

    def rows(self, before: str = "", count: int = -1) -> list[IndexRow]:
        """Return rows, newest first.

        Args:
            before: Only sessions that were opened before this one; "" for all.
            count: How many at most; -1 for all.

        Raises:
            StoreError: The index cannot be read.
        """
        where = "WHERE id < ?" if before else "WHERE ? = ''"
        return self._select(f"{where} ORDER BY id DESC LIMIT ?", before, count)

    def of_request(self, request_id: str) -> IndexRow | None:
        """Return the session that a request id opened; None where there is none.

        Raises:
            StoreError: The index cannot be read.
        """
        found = self._select("WHERE request_id = ? ORDER BY id DESC LIMIT 1", request_id)
        return found[0] if request_id and found else None

    def read(self, session_id: str) -> IndexRow:
        """Return what a session's own file says; one that cannot be read has a row too."""
        try:
            return self._read(session_id)
        except (StoreError, SessionNotFoundError) as error:
            return IndexRow(session_id, problem=str(error))

    def _select(self, rest: str, *arguments: object) -> list[IndexRow]:
        rows = self._stored(rest, arguments)
        if any(digest_of(row[:-1]) != row[-1] for row in rows):
            self._remove()
            self.refresh()
            rows = self._stored(rest, arguments)
        names = [field.name for field in dataclasses.fields(IndexRow)]
        found = [dict(zip(names, row[:-1], strict=True)) for row in rows]
        return [IndexRow(**{**row, "closed": bool(row["closed"])}) for row in found]

    def _stored(self, rest: str, arguments: Sequence[object]) -> list[tuple[Any, ...]]:
        columns = f"{', '.join(COLUMNS)}, problem, digest"
        with self._open() as connection:
            return connection.execute(
                f"SELECT {columns} FROM session {rest}",  # noqa: S608 - no user text
                arguments,
            ).fetchall()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to the index; one that is damaged is removed and made anew."""
        try:
            try:
                connection = self._connect()
            except sqlite3.OperationalError:
                raise  # the disk is full, or the folder not ours: no fault of the index
            except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError, MemoryError):
                self._remove()
                connection = self._connect()
            with contextlib.closing(connection):
                yield connection
        except sqlite3.OperationalError as error:
            raise store_error(self._path, error) from error
        except UNREADABLE as error:
            self._remove()
            raise store_error(self._path, error) from error
        except OSError as error:
            raise store_error(self._path, error) from error

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S)
        try:
            # It may lose its newest rows when the power fails: `refresh` reads them again.
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "trusted_schema=OFF"):
                connection.execute(f"PRAGMA {pragma}")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                connection.executescript(
                    f"BEGIN IMMEDIATE; DROP TABLE IF EXISTS session; {SCHEMA}"
                    f"PRAGMA user_version={VERSION}; COMMIT;"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _put(connection: sqlite3.Connection, row: IndexRow) -> None:
    values = (
        row.session_id,
        row.request_id,
        row.bundle_name,
        row.bundle_digest,
        row.settings,
        row.created,
        int(row.closed),
        row.problem,
    )
    marks = ", ".join("?" * (len(values) + 1))
    connection.execute(
        f"INSERT OR REPLACE INTO session VALUES ({marks})",  # noqa: S608 - no user text
        (*values, digest_of(values)),
    )
