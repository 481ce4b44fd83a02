"""Examines a session's file row by row, and writes a new one of the rows that are whole.

A lost row takes with it what would be wrong without it: a field whose state or cells are lost is
flagged as removed, so that the score is that of the other fields, and its part of the slide can be
read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_mil.store.change import InstanceKind
from edge_mil.store.connection import sync_file, sync_folder
from edge_mil.store.digest import of_own_digest, with_own_digest
from edge_mil.store.faults import UNREADABLE, damaged, store_error
from edge_mil.store.seal import Fetched, Row, insert
from edge_mil.store.session_file import FIRST_META, FileLock, open_database
from edge_mil.store.tables import TABLES
from edge_mil.store.whole_rows import RowName, fetch_all, opened, remove_database

RECOVERED = "recovered"
"""Kind of the event, and name in the meta table, of what was lost."""
LONGEST_COMPLAINT = 200
"""Characters of what SQLite says of a file's structure."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What of a session's file is whole.

    Attributes:
        whole: Table -> how many of its rows are what was written.
        damaged: The rows that are not, or that vanished.
        structure: What SQLite says of the file's pages; "" when they are in order.
    """

    whole: Mapping[str, int]
    damaged: tuple[RowName, ...]
    structure: str

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged and not self.structure


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was kept of a damaged session.

    Attributes:
        lost_fields: Fields that no longer count; those whose answer is whole are flagged removed.
        lost_rows: Every row that could not be kept.
        kept: Where the damaged file is now.
    """

    lost_fields: tuple[int, ...]
    lost_rows: tuple[RowName, ...]
    kept: Path


def examine(path: Path) -> Examination:
    """Compare every row of a session's file with its digest; changes nothing.

    Raises:
        DamagedStoreError: It is no database any more, or of a release without digests.
        StoreError: It cannot be opened.
    """
    with opened(path) as connection:
        rows = dict(fetch_all(connection))
        structure = ""
        try:
            for (line,) in connection.execute("PRAGMA integrity_check(1)"):
                structure = "" if line == "ok" else str(line)[:LONGEST_COMPLAINT]
        except UNREADABLE as error:
            structure = str(error)[:LONGEST_COMPLAINT]
    lost = tuple(name for name, found in rows.items() if found is None or not found.is_whole)
    whole = {table: sum(name[0] == table and name not in lost for name in rows) for table in TABLES}
    return Examination(whole, lost, structure)


def recover(path: Path) -> Recovery:
    """Put a file of the whole rows in the place of a damaged one, which is kept beside it.

    Raises:
        DamagedStoreError: What the session was opened with is lost: only a back-up helps.
        StoreError: The session is in use, or the new file cannot be written.
    """
    folder = path.parent
    try:
        lock = FileLock(path.with_suffix(".lock"))
    except OSError as error:
        raise store_error(path, error) from error
    try:
        made = folder / "recovered.db"
        remove_database(made)
        with opened(path) as old:
            rows, first_meta = dict(fetch_all(old)), _first_meta(old)
        try:
            with contextlib.closing(open_database(made)) as new:
                lost = _write_whole(new, rows, first_meta, path)
                new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                new.execute("PRAGMA journal_mode=DELETE")  # one file, to be renamed
        except UNREADABLE as error:
            raise store_error(made, error) from error
        except BaseException:
            remove_database(made)
            raise
        kept = _swap(path, made)
    finally:
        lock.release()
    damaged_rows = tuple(n for n, found in rows.items() if found is None or not found.is_whole)
    return Recovery(tuple(sorted(lost)), damaged_rows, kept)


def _write_whole(
    new: sqlite3.Connection,
    rows: Mapping[RowName, Fetched | None],
    first_meta: Mapping[str, str],
    path: Path,
) -> set[int]:
    """Write the rows that can be kept; return the fields that no longer count."""
    kept = {name: found.row for name, found in rows.items() if found and found.is_whole}
    fields = {
        number: found.row
        for (table, number, _), found in rows.items()
        if table == "field" and found is not None
    }
    lost = _lost_fields(rows, fields)
    lost_keys = {key for (table, number, key) in rows if table == "instance" and number in lost}
    key_frames = {number for (table, number, _) in kept if table == "key_field"}

    def is_kept(name: RowName, row: Row) -> bool:
        table, number, key = name
        if table == "instance":
            # Candidates of a slot whose best field is lost cannot take its place unfolded.
            return number not in lost and key not in lost_keys
        if table == "part":
            return row["sequence"] not in lost
        if table == "located":
            return row["anchor"] in key_frames
        if table == "thumbnail":
            return number in fields
        return table != "field" and (table, key) != ("attachment", FIRST_META)

    new.execute("BEGIN IMMEDIATE")
    if first_meta:
        insert(new, "attachment", [(FIRST_META, with_own_digest(first_meta))])
    for table in TABLES.values():
        for name in sorted(name for name in kept if name[0] == table.name):
            row = kept[name]
            if is_kept(name, row):
                if table.name == "key_field":
                    row = {**row, "links": _kept_links(row["links"], key_frames)}
                insert(new, table.name, [[row[column] for column in table.columns]])
    for number, row in sorted(fields.items()):
        if number in lost:
            row = {**row, "state": None, "removed": 1}
        insert(new, "field", [[row[column] for column in TABLES["field"].columns]])
    _complete_meta(new, kept, first_meta, lost, len(fields), path)
    new.execute("COMMIT")
    return lost


def _lost_fields(rows: Mapping[RowName, Fetched | None], fields: Mapping[int, Row]) -> set[int]:
    """Return the fields whose part of the bag is not whole."""
    lost: set[int] = set()
    for (table, number, _), found in rows.items():
        if table == "field" and (found is None or not found.is_whole):
            lost.add(number)
        if table != "instance":
            continue
        field = fields.get(number)
        if field is None:
            lost.add(number)
        elif found is None:
            # Its kind is unknown. A field that holds nothing loses nothing.
            if field.get("state") is not None:
                lost.add(number)
        elif not found.is_whole and found.row["kind"] == InstanceKind.HELD:
            lost.add(number)
    return lost


def _complete_meta(
    new: sqlite3.Connection,
    kept: Mapping[RowName, Row],
    first_meta: Mapping[str, str],
    lost: set[int],
    fields: int,
    path: Path,
) -> None:
    """Write back names of the meta table that are lost, and what the recovery lost."""
    meta = {row["name"]: row["value"] for (table, _, _), row in kept.items() if table == "meta"}
    missing = {name: value for name, value in first_meta.items() if name not in meta}
    insert(new, "meta", missing.items())
    meta.update(missing)
    if "settings" not in meta or "bundle_digest" not in meta:
        raise damaged(path, "what the session was opened with is lost, so only a back-up helps")
    revision = max(int(meta.get("revision", 0)), fields) + 1
    body = json.dumps({"lost_fields": sorted(lost)})
    changed = {"revision": str(revision), RECOVERED: body}
    insert(new, "meta", changed.items(), replace=True)
    insert(new, "event", [(None, time.time(), RECOVERED, body)])


def _kept_links(text: str, key_frames: set[int]) -> str:
    return json.dumps([link for link in json.loads(text) if link[0] in key_frames])


def _swap(path: Path, made: Path) -> Path:
    """Put a file in the place of another; at each moment the folder holds one of the two."""
    aside = path.parent / time.strftime("damaged-%Y%m%dT%H%M%SZ", time.gmtime())
    aside.mkdir(mode=0o700, exist_ok=True)
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.is_file():
            (aside / source.name).unlink(missing_ok=True)
            os.link(source, aside / source.name)
    # The old log must be gone before: SQLite would apply it to the new file.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    sync_file(made)
    os.replace(made, path)
    sync_folder(path.parent)
    return aside


def _first_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what the session was opened with, also where the digests themselves are lost."""
    sql = "SELECT data FROM attachment WHERE name = ?"
    with contextlib.suppress(*UNREADABLE):
        for (data,) in connection.execute(sql, (FIRST_META,)):
            return of_own_digest(data)
    return {}
