"""Reads what can be read of a session's file that may be damaged, row by row."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_mil.errors import StoreError
from edge_mil.store.connection import connect
from edge_mil.store.faults import UNREADABLE, damaged, store_error
from edge_mil.store.seal import Fetched, fetch
from edge_mil.store.session_reader import SEALED_SINCE
from edge_mil.store.tables import TABLES

HEADER_BYTES = 100
"""SQLite's header: bytes 16 to 17 are the size of a page, 28 to 31 the number of pages
(https://www.sqlite.org/fileformat.html, section 1.3)."""
LARGEST_BYTES = 1 << 40
"""A header that says more is damaged itself."""

RowName = tuple[str, int, str]
"""Table, number and key of a row."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection to a file that may be damaged."""
    if not path.is_file():
        raise StoreError(f"There is no session file at {path}; check --state and the id.")
    try:
        with _padded(path) as whole, contextlib.closing(connect(whole)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version < SEALED_SINCE:
                raise damaged(path, f"schema {version} has no digests, so no row can be compared")
            yield connection
    except UNREADABLE as error:
        raise store_error(path, error) from error


@contextlib.contextmanager
def _padded(path: Path) -> Iterator[Path]:
    """Give a file that SQLite opens: one whose end is cut off gets pages of zeros, in a copy."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    size = int.from_bytes(header[16:18], "big") * int.from_bytes(header[28:32], "big")
    log = path.with_name(path.name + "-wal")
    cut = header.startswith(b"SQLite format 3") and path.stat().st_size < size
    if not cut or size > LARGEST_BYTES or (log.is_file() and log.stat().st_size):
        yield path
        return
    copy = path.with_name("padded.db")
    try:
        shutil.copyfile(path, copy)
        os.truncate(copy, size)
        yield copy
    finally:
        remove_database(copy)


def fetch_all(connection: sqlite3.Connection) -> Iterator[tuple[RowName, Fetched | None]]:
    """Yield every row that is there, or that has a digest; None for one that cannot be read.

    Each is looked up by itself, so that a broken page hides only the rows on it.
    """
    for table in TABLES.values():
        number, key = table.number or "0", table.key or "''"
        sealed = f"SELECT number, key FROM seal WHERE kind = '{table.name}'"  # noqa: S608
        stored = f"SELECT {number}, {key} FROM {table.name}"  # noqa: S608 - no user text
        names: set[tuple[int, str]] = set()
        for sql in (sealed, stored):
            # From both ends: a broken page stops each of the two.
            names |= _readable(connection, f"{sql} ORDER BY 1, 2")
            names |= _readable(connection, f"{sql} ORDER BY 1 DESC, 2 DESC")
        for at in sorted(names):
            try:
                yield (table.name, *at), fetch(connection, table.name, *at)
            except UNREADABLE:
                yield (table.name, *at), None


def _readable(connection: sqlite3.Connection, sql: str) -> set[tuple[int, str]]:
    """Return the rows up to the first that cannot be read."""
    found: set[tuple[int, str]] = set()
    with contextlib.suppress(*UNREADABLE):
        for number, key in connection.execute(sql):
            if isinstance(number, int) and isinstance(key, str):
                found.add((number, key))
    return found


def remove_database(path: Path) -> None:
    """Remove a file and its logs."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
