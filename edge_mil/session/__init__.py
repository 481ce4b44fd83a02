"""One slide being read: its bag, its live score, its records."""

from typing import TYPE_CHECKING

from edge_mil.renamed import renamed
from edge_mil.session.answer_log import StoredAnswer
from edge_mil.session.catalog import SessionFolder, SessionSummary
from edge_mil.session.session import Session
from edge_mil.session.settings import SessionSettings
from edge_mil.session.view.records import FieldRecord, SessionStatus
from edge_mil.state_directory import default_state_folder
from edge_mil.types import InfluenceMap

__all__ = [
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
