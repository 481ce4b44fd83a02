"""One reading of one slide: frames in; verdicts, a live score and durable records out.

`session` takes a frame through its steps: `field` corrects and gates it, `instances` finds its
position and plans what it changes, the model extracts and attends, and the state of its instances
is folded into the `bag`, scored by `scorer`, and stored. `restore` begins a session or continues a
stored one, `catalog` finds all sessions of a device, with `catalog_index` as its cache. `view`
answers questions about a session, `report` writes it as a page or as tables. `answer_log`,
`provenance`, `settings`, `status` and `stored_fields` hold what their names say.
"""

from typing import TYPE_CHECKING

from edge_mil.renamed import renamed
from edge_mil.session.answer_log import StoredAnswer
from edge_mil.session.catalog import DamagedSession, SessionFolder, SessionSummary
from edge_mil.session.session import Session
from edge_mil.session.settings import SessionSettings
from edge_mil.session.status import SessionStatus
from edge_mil.session.view.records import FieldRecord
from edge_mil.state_directory import default_state_folder
from edge_mil.types import InfluenceMap

__all__ = [
    "DamagedSession",
    "FieldRecord",
    "InfluenceMap",
    "Session",
    "SessionFolder",
    "SessionSettings",
    "SessionStatus",
    "SessionSummary",
    "StoredAnswer",
    "default_state_folder",
]

if not TYPE_CHECKING:  # else mypy would accept any name
    __getattr__ = renamed(__name__, {"HeatMap": "InfluenceMap", "Standing": "SessionStatus"})
