"""Sessions on disk, one SQLite file each: changes in, rows out; what was acknowledged is durable.

`change` holds the rows and `Change`, one durable step; `session_file` writes changes, whole or not
at all; `session_reader` reads them, also beside a service that writes. The tables are in `schema/`,
one numbered migration a file; there, an instance's key is called `place`.
"""

from edge_mil.store.change import (
    Change,
    FieldRow,
    GeometryRow,
    InstanceKind,
    InstanceRow,
    KeyFrameRow,
    LocatedRow,
    PartRow,
)
from edge_mil.store.session_file import SCHEMA, SessionFile
from edge_mil.store.session_reader import SessionReader

__all__ = [
    "SCHEMA",
    "Change",
    "FieldRow",
    "GeometryRow",
    "InstanceKind",
    "InstanceRow",
    "KeyFrameRow",
    "LocatedRow",
    "PartRow",
    "SessionFile",
    "SessionReader",
]
