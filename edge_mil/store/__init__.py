"""Sessions on disk, one SQLite file each: changes in, rows out; what was acknowledged is durable.

`change` holds the rows and `Change`, one durable step; `session_file` writes changes, whole or not
at all, through the threads of `committer`; `session_reader` reads them, also beside a service that
writes (`connection`, `rows`). Every row of `tables` has a `digest`, which `seal` writes and
compares; `salvage` keeps what is whole of a damaged file (`whole_rows`), `faults` says what is
wrong. `state_claim` keeps a second service off a state directory. The tables are in `schema/`, one
numbered migration a file; there, an instance's key is called `place`.
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
from edge_mil.store.committer import Committer
from edge_mil.store.salvage import RECOVERED, Examination, Recovery, examine, recover
from edge_mil.store.session_file import FIRST_META, SCHEMA, SessionFile, session_committer
from edge_mil.store.session_reader import SessionReader
from edge_mil.store.state_claim import StateClaim

__all__ = [
    "FIRST_META",
    "RECOVERED",
    "SCHEMA",
    "Change",
    "Committer",
    "Examination",
    "FieldRow",
    "GeometryRow",
    "InstanceKind",
    "InstanceRow",
    "KeyFrameRow",
    "LocatedRow",
    "PartRow",
    "Recovery",
    "SessionFile",
    "SessionReader",
    "StateClaim",
    "examine",
    "recover",
    "session_committer",
]
