"""Digests of stored rows: a row that changed, or vanished, outside of a transaction is found.

SQLite notices a broken page only where its structure breaks; a flipped bit in a number is read as
another number. So each row has a digest in the table `seal`, on another page than the row itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_mil.store.digest import bulk_digest, digest_of
from edge_mil.store.tables import TABLES, Table

Row = dict[str, Any]
"""Column -> value."""


class DamagedRowsError(Exception):
    """Rows are not what was written; the reader and the writer of a file say so with its path.

    Attributes:
        rows: (table, number, key) of each; the number is None where only their count is known.
    """

    def __init__(self, rows: Sequence[tuple[str, int | None, str]]) -> None:
        super().__init__(rows)
        self.rows = tuple(rows)


def insert(
    connection: sqlite3.Connection,
    name: str,
    rows: Iterable[Sequence[Any]],
    *,
    replace: bool = False,
) -> None:
    """Insert rows, in the order of the schema's columns, with their digests.

    A value must have the type that SQLite gives back: a float in a column of REAL.
    """
    table = TABLES[name]
    verb, marks = "INSERT OR REPLACE" if replace else "INSERT", ", ".join("?" * len(table.columns))
    sql = f"{verb} INTO {name} ({', '.join(table.columns)}) VALUES ({marks})"
    for values in rows:
        written = connection.execute(sql, values)
        row = {"rowid": written.lastrowid, **dict(zip(table.columns, values, strict=True))}
        if table.number and row[table.number] is None:
            row[table.number] = written.lastrowid  # SQLite numbers the rows of `event`
        _seal(connection, table, row)


def update(
    connection: sqlite3.Connection, name: str, number: int, key: str = "", **changes: object
) -> None:
    """Change columns of one row, and its digest; no row, no change.

    The small columns are compared with their digest before, so that damage is not sealed as if it
    were right. A large one that changes is replaced as a whole.

    Raises:
        DamagedRowsError: The row is not what was written.
    """
    table = TABLES[name]
    found = connection.execute(
        f"SELECT s.digest, s.bulk, {', '.join(f't.{c}' for c in table.small)} FROM {name} AS t"  # noqa: S608
        f" LEFT JOIN seal AS s ON s.kind = ? AND s.number = ? AND s.key = ? WHERE {table.matches}",
        (name, number, key, number, key),
    ).fetchone()
    if found is None:
        return
    digest, bulk, *values = found
    if digest != digest_of(values):
        raise DamagedRowsError([(name, number, key)])
    connection.execute(
        f"UPDATE {name} AS t SET {', '.join(f'{c} = ?' for c in changes)} WHERE {table.matches}",  # noqa: S608
        (*changes.values(), number, key),
    )
    row = {"rowid": number, **dict(zip(table.small, values, strict=True)), **changes}
    _seal(connection, table, row, None if set(changes) & set(table.bulk) else bulk)
    if table.key in changes:
        connection.execute(
            "DELETE FROM seal WHERE kind = ? AND number = ? AND key = ?", (name, number, key)
        )


def sealed_rows(
    connection: sqlite3.Connection,
    name: str,
    *,
    bulk: bool = False,
    where: str = "",
    arguments: Sequence[object] = (),
    order: str = "",
) -> Iterator[Row]:
    """Yield rows that are what was written.

    Args:
        connection: To the file.
        name: The table.
        bulk: Read the large columns too; what is not read is not compared.
        where: Condition over the table's columns (alias t); "" for all rows.
        arguments: Of the condition.
        order: Columns to sort by.

    Raises:
        DamagedRowsError: A row changed. One that vanished is found by `require_all`.
    """
    table = TABLES[name]
    sql = table.select(bulk=bulk)
    sql += f" WHERE {where}" if where else ""
    sql += f" ORDER BY {order}" if order else ""
    small, large = table.small, table.bulk if bulk else ()
    columns, split = (*small, *large), 4 + len(small)
    for found in connection.execute(sql, arguments):
        if not _is_whole(found, split, bulk=bool(large)):
            raise DamagedRowsError([(name, found[2], found[3])])
        yield dict(zip(columns, found[4:], strict=True))


def require_all(
    connection: sqlite3.Connection,
    name: str,
    found: int,
    first: int | None = None,
    last: int | None = None,
) -> None:
    """Check that as many rows were found as have a digest.

    Args:
        connection: To the file.
        name: The table.
        found: Rows that were found.
        first: Smallest number of the rows that were asked for; None for all of the table.
        last: Largest number.

    Raises:
        DamagedRowsError: Some vanished.
    """
    sql = "SELECT count(*) FROM seal WHERE kind = ?"
    if first is None:
        sealed = connection.execute(sql, (name,)).fetchone()[0]
    else:
        sql += " AND number BETWEEN ? AND ?"
        sealed = connection.execute(sql, (name, first, last)).fetchone()[0]
    if sealed != found:
        raise DamagedRowsError([(name, first if first == last else None, "")])


def seal_all(connection: sqlite3.Connection) -> None:
    """Give every row of a file of an earlier release its digest."""
    for table in TABLES.values():
        columns = ("rowid",) if table.number == "rowid" else ()
        names = (*columns, *table.columns)
        for values in connection.execute(f"SELECT {', '.join(names)} FROM {table.name}"):  # noqa: S608
            _seal(connection, table, dict(zip(names, values, strict=True)))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A row whose small columns are what was written.

    Attributes:
        row: Column -> value.
        is_whole: Whether the large columns are what was written too; else they are None in `row`.
    """

    row: Row
    is_whole: bool


def fetch(connection: sqlite3.Connection, name: str, number: int, key: str) -> Fetched | None:
    """Return one row; None where it vanished, or its small columns are not what was written.

    Raises:
        sqlite3.Error: The pages on the path to it cannot be read.
    """
    table = TABLES[name]
    row: Row = {}
    whole = True
    for bulk in (False, True):
        columns = table.bulk if bulk else table.small
        if not columns:
            continue
        listed = ", ".join(f"t.{column}" for column in columns)
        try:
            found = connection.execute(
                f"SELECT s.{'bulk' if bulk else 'digest'}, {listed} FROM {name} AS t LEFT JOIN seal"  # noqa: S608
                f" AS s ON s.kind = ? AND s.number = ? AND s.key = ? WHERE {table.matches}",
                (name, number, key, number, key),
            ).fetchone()
        except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError):
            if not bulk:
                raise
            found = None
        digest = bulk_digest if bulk else digest_of
        if found is None or found[0] != digest(found[1:]):
            if not bulk:
                return None
            whole, found = False, (0, *(None for _ in columns))
        row.update(zip(columns, found[1:], strict=True))
    return Fetched(row, whole)


def _is_whole(found: Sequence[Any], split: int, *, bulk: bool) -> bool:
    """Say whether a row is what was written; it begins with its two digests."""
    small = found[0] == digest_of(found[4:split])
    return small and (not bulk or found[1] == bulk_digest(found[split:]))


def _seal(connection: sqlite3.Connection, table: Table, row: Row, bulk: int | None = None) -> None:
    """Write the digests of a row; `bulk` is that of the large columns where they did not change."""
    if bulk is None:
        bulk = bulk_digest(row[column] for column in table.bulk)
    number = row[table.number] if table.number else 0
    key = row[table.key] if table.key else ""
    small = digest_of(_plain(row[column]) for column in table.small)
    connection.execute(
        "INSERT OR REPLACE INTO seal VALUES (?, ?, ?, ?, ?)", (table.name, number, key, small, bulk)
    )


def _plain(value: object) -> object:
    """Return a value as SQLite gives it back: no enum, no boolean, no number of NumPy."""
    if value is None or type(value) in (int, float, str, bytes):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else value
