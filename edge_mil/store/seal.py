"""Digests of stored rows: a row that changed, or vanished, outside of a transaction is found.

SQLite notices a broken page only where its structure breaks; a flipped bit in a number is read as
another number. So each row has a digest in the table `seal`, on another page than the row itself.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIGEST_BYTES = 8
"""A wrong row has the digest of the right one once in 2^64; SQLite's integers have as many."""

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


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows have digests.

    Attributes:
        name: In the schema.
        columns: All columns in the order of the schema.
        bulk: Those that are large: a listing does not read them, and they have an own digest.
        number: Column that tells its rows apart, with `key`; "" where `key` alone does.
        key: Column of text that does; "" for none.
    """

    name: str
    columns: tuple[str, ...]
    bulk: tuple[str, ...]
    number: str
    key: str

    @property
    def small(self) -> tuple[str, ...]:
        """The columns that are not large."""
        return tuple(column for column in self.columns if column not in self.bulk)

    @property
    def matches(self) -> str:
        """SQL condition (alias t) of one row, for its number and its key."""
        number = f"t.{self.number}" if self.number else "0"
        key = f"t.{self.key}" if self.key else "''"
        return f"{number} = ? AND {key} = ?"

    def select(self, *, bulk: bool) -> str:
        """Return SQL of rows with their digests; `WHERE` and `ORDER BY` may follow."""
        number = f"t.{self.number}" if self.number else "0"
        key = f"t.{self.key}" if self.key else "''"
        columns = ", ".join(f"t.{c}" for c in (*self.small, *(self.bulk if bulk else ())))
        return (
            f"SELECT s.digest, s.bulk, {number}, {key}, {columns}"  # noqa: S608 - no user text
            f" FROM {self.name} AS t LEFT JOIN seal AS s"
            f" ON s.kind = '{self.name}' AND s.number = {number} AND s.key = {key}"
        )


def _table(
    name: str, columns: str, *, bulk: str = "", number: str = "sequence", key: str = ""
) -> Table:
    return Table(name, tuple(columns.split()), tuple(bulk.split()), number, key)


TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        _table("meta", "name value", number="", key="name"),
        _table("attachment", "name data", bulk="data", number="", key="name"),
        _table("field", "sequence verdict payload_crc header answer state removed", bulk="state"),
        _table(
            "instance",
            "place sequence kind sources note features attention_logits",
            bulk="features attention_logits",
            key="place",
        ),
        _table("part", "place sequence box pixels sharpness", bulk="pixels", number="rowid"),
        _table("thumbnail", "sequence jpeg", bulk="jpeg"),
        _table("key_field", "sequence x y size factor picture links", bulk="picture"),
        _table("located", "sequence anchor dx dy x y"),
        _table("event", "number time kind body", number="number"),
    )
}
"""Every table but `seal` itself, as `edge_mil/store/schema/` makes it."""


def digest_of(values: Iterable[object]) -> int:
    """Return the digest of values as SQLite gives them back: a signed 64-bit integer.

    Each value goes in with its type and length, so that no two rows have the same bytes.
    """
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for value in values:
        if value is None:
            total.update(b"n")
        elif isinstance(value, int):
            total.update(b"i%d;" % value)
        elif isinstance(value, float):
            total.update(b"f" + struct.pack("<d", value))
        elif isinstance(value, str):
            text = value.encode()
            total.update(b"t%d;" % len(text) + text)
        else:
            data = memoryview(value).cast("B")  # type: ignore[arg-type] # what SQLite has left
            total.update(b"b%d;" % len(data))
            total.update(data)
    return int.from_bytes(total.digest(), "little", signed=True)


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
        except sqlite3.Error:
            if not bulk:
                raise
            found = None
        if found is None or found[0] != digest_of(found[1:]):
            if not bulk:
                return None
            whole, found = False, (0, *(None for _ in columns))
        row.update(zip(columns, found[1:], strict=True))
    return Fetched(row, whole)


def _is_whole(found: Sequence[Any], split: int, *, bulk: bool) -> bool:
    """Say whether a row is what was written; it begins with its two digests."""
    small = found[0] == digest_of(found[4:split])
    return small and (not bulk or found[1] == digest_of(found[split:]))


def _seal(connection: sqlite3.Connection, table: Table, row: Row, bulk: int | None = None) -> None:
    """Write the digests of a row; `bulk` is that of the large columns where they did not change."""
    if bulk is None:
        bulk = digest_of(row[column] for column in table.bulk)
    number = row[table.number] if table.number else 0
    key = row[table.key] if table.key else ""
    small = digest_of(row[column] for column in table.small)
    connection.execute(
        "INSERT OR REPLACE INTO seal VALUES (?, ?, ?, ?, ?)", (table.name, number, key, small, bulk)
    )


def with_own_digest(values: Mapping[str, str]) -> bytes:
    """Return names and values as bytes that need no row of `seal` to be compared."""
    text = json.dumps(dict(values), sort_keys=True)
    return json.dumps({"digest": digest_of([text]), "values": text}).encode()


def of_own_digest(data: bytes) -> dict[str, str]:
    """Return what `with_own_digest` wrote; nothing where it is not that any more."""
    try:
        found = json.loads(data)
        if found["digest"] == digest_of([found["values"]]):
            return dict(json.loads(found["values"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}
