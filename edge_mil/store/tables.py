"""The tables whose rows have digests, as `edge_mil/store/schema/` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows have digests.

    Attributes:
        name: In the schema.
        columns: All columns in the order of the schema.
        bulk: Those that are large: a listing does not read them, and they have an own digest.
        number: Column that tells its rows apart, with `key`; "" where `key` alone does.
        key: Column of text that does; "" for none.
        small: The columns that are not large.
    """

    name: str
    columns: tuple[str, ...]
    bulk: tuple[str, ...]
    number: str
    key: str
    small: tuple[str, ...]

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
    every, large = tuple(columns.split()), tuple(bulk.split())
    small = tuple(column for column in every if column not in large)
    return Table(name, every, large, number, key, small)


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
        _table(
            "geometry", "number sequence evidence reference image", bulk="image", number="number"
        ),
        _table("event", "number time kind body", number="number"),
    )
}
"""Every table but `seal` itself, as `edge_mil/store/schema/` makes it."""
