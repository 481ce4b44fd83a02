"""Connections to a session's file, and waits until bytes and names are on the disk."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

BUSY_S = 5.0
"""How long to wait for another connection's lock."""


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to a session's file, with the options that every one has.

    Raises:
        sqlite3.Error: It cannot be opened, or is no database.
    """
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_S
    )
    try:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=0",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has no such call."""
    if os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def publish_folder(hidden: Path, name: Path) -> None:
    """Give a folder its name; when this returns, neither is lost by a cut of the power."""
    sync_folder(hidden)
    hidden.rename(name)
    for folder in (name.parent, name.parent.parent):
        sync_folder(folder)
