"""What SQLite and the system say when a file cannot be used, as one of four errors."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from edge_mil.errors import (
    DamagedStoreError,
    StoreBusyError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
)
from edge_mil.store.seal import DamagedRowsError

# SQLite's messages: sqlite3 of Python 3.10 does not give the codes behind them.
FULL = ("database or disk is full",)
BUSY = ("database is locked", "database table is locked", "database schema is locked")
DENIED = ("unable to open database file", "readonly database", "access permission denied")
DENIALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
ROW_NAMES = {
    "meta": "meta {key}",
    "attachment": "attachment {key}",
    "field": "field {number}",
    "instance": "instance {key} of field {number}",
    "part": "pixels {number} of an unfinished cell",
    "thumbnail": "thumbnail of field {number}",
    "key_field": "key frame of field {number}",
    "located": "position of field {number}",
    "geometry": "evidence {number} about stage and slide",
    "event": "event {number}",
}
"""Table -> one of its rows in words."""
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError)
"""What Python raises for a file that is damaged: SQLite quotes a broken schema in a message that is
then no text, and a broken length asks for more memory than there is."""
SHOWN_ROWS = 3
"""Damaged rows that a message names; `edge-mil session check` names all."""


def store_error(path: Path, error: Exception) -> StoreError:
    """Return the error that says what is wrong with a session's file, and what to do.

    Args:
        path: The file.
        error: A `sqlite3.Error`, an `OSError`, or `DamagedRowsError`.
    """
    text = str(error)
    if isinstance(error, DamagedRowsError):
        return damaged(path, named(error.rows))
    if isinstance(error, OSError):
        return system_error(error, f"The session file {path} cannot be opened")
    if any(part in text for part in FULL):
        return StoreFullError(
            f"The disk of {path} is full; free some space, then resume the session: nothing that "
            "was acknowledged is lost."
        )
    if any(part in text for part in BUSY):
        return StoreBusyError(
            f"Another program keeps the session file {path} locked; end it, then try again."
        )
    if any(part in text for part in DENIED):
        return StoreDeniedError(
            f"The session file {path} cannot be opened or written ({text}); check the rights of "
            "its folder, and that the disk is not read-only."
        )
    if "disk I/O error" in text:
        return StoreError(
            f"The session file {path} cannot be written or read ({text}); free some space and look "
            "at the system's log, then resume the session: nothing that was acknowledged is lost."
        )
    if isinstance(error, sqlite3.IntegrityError):
        return StoreError(
            f"A record cannot be written to the session file {path} ({text}); resume the session "
            "and send the field again: nothing that was acknowledged is lost."
        )
    return damaged(path, text)


def damaged(path: Path, what: str) -> DamagedStoreError:
    """Return the error of a file whose rows, or whose structure, are not what was written."""
    session = path.parent.name
    return DamagedStoreError(
        f"The session file {path} is damaged ({what}). Look at it with edge-mil session check "
        f"{session}, which names what is lost; with --recover it keeps the rest.",
        session=session,
    )


def named(rows: Sequence[tuple[str, int | None, str]]) -> str:
    """Return damaged rows in words, the first few of them."""
    words = [row_name(*row) for row in rows[:SHOWN_ROWS]]
    more = len(rows) - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def row_name(table: str, number: int | None, key: str) -> str:
    """Return one row in words."""
    if number is None:
        return f"rows of {table} are missing"
    return ROW_NAMES[table].format(number=number, key=key or "?")


def system_error(error: OSError, what: str) -> StoreError:
    """Return the error that says why the system refuses a file or folder, and what to do.

    Args:
        error: From the system.
        what: The first words of the message: what cannot be done.
    """
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(f"{what} ({reason}); free some space, then try again.")
    if error.errno in DENIALS:
        return StoreDeniedError(f"{what} ({reason}); check its rights, or name another --state.")
    return StoreError(
        f"{what} ({reason}); check its rights and the free space, or name another --state."
    )
