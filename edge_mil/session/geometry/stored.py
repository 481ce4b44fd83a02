"""Read the checks of a stored session, without its bundle and beside a service that writes it."""

from __future__ import annotations

from dataclasses import dataclass

from edge_mil.session.geometry.log import GeometryLog
from edge_mil.session.settings import SessionSettings
from edge_mil.store import SessionReader
from edge_mil.types import CheckState, SessionCheck

NO_STAGE = (
    "The positions of this session are not compared with the images, so pixel size and stage are "
    "unproven."
)
"""Of a session without a stage, and of one whose instances are whole fields."""


@dataclass(frozen=True, slots=True)
class StoredChecks:
    """The checks of a session as its records leave them.

    Attributes:
        geometry: Whether pixel size, axes and units are those that the images show.
        slide: Whether the slide is still the one of the beginning.
        suspects: Sequences of the fields that were taken before a contradiction was found.
    """

    geometry: SessionCheck
    slide: SessionCheck
    suspects: tuple[int, ...] = ()

    def rows(self) -> dict[str, str]:
        """Return both as rows of a table: name -> state and sentence."""
        found = {"geometry check": self.geometry, "slide check": self.slide}
        return {name: f"{c.state.value}: {c.sentence}" for name, c in found.items()}

    @property
    def warning(self) -> str:
        """What a reader of the score must know first; "" where nothing is contradicted."""
        found = [c for c in (self.geometry, self.slide) if c.state is CheckState.CONTRADICTED]
        if not found:
            return ""
        counted = f" {len(self.suspects)} fields were taken before that was found."
        return " ".join(check.sentence for check in found) + counted


def stored_checks(records: SessionReader, settings: SessionSettings) -> StoredChecks:
    """Fold the stored observations of a session.

    Raises:
        StoreError: The records cannot be read.
    """
    rows = records.geometry()
    if not rows:
        nothing = SessionCheck(sentence=NO_STAGE)
        return StoredChecks(nothing, nothing)
    log = GeometryLog(settings.mpp, insist=settings.insist_geometry)
    log.restore(row.observation for row in rows)
    suspects = tuple(row.sequence for row in rows if row.sequence and log.is_suspect(row.sequence))
    return StoredChecks(log.geometry, log.slide, suspects)
