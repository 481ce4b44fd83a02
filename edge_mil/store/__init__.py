"""Sessions on disk: one SQLite file each; what was acknowledged is in it."""

from edge_mil.store.records import (
    Change,
    FieldRow,
    InstanceKind,
    InstanceRow,
    KeyRow,
    LocatedRow,
    PartRow,
)
from edge_mil.store.session_file import SCHEMA, SessionFile
from edge_mil.store.session_reader import SessionReader

__all__ = [
    "SCHEMA",
    "Change",
    "FieldRow",
    "InstanceKind",
    "InstanceRow",
    "KeyRow",
    "LocatedRow",
    "PartRow",
    "SessionFile",
    "SessionReader",
]
