"""Which extractor made the fields of a session: its record says so, and says each change."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edge_mil.pipeline.runners.runner import Runner

PRECISION, EXTRACTOR = "precision", "extractor"
"""Names in the file's meta table: every precision that made a field, in the order of their first;
and what made the latest."""
CHANGED = "extractor"
"""Kind of the event."""


class RunnerHistory:
    """Notes what extracts the fields of a session.

    A service may move it from one backend or precision to another between two fields, within the
    bundle's fidelity bound; never unseen.
    """

    def __init__(self, meta: Mapping[str, str]) -> None:
        """Go on from a session's record."""
        self._precisions = [p for p in meta.get(PRECISION, "").split(",") if p]
        self._latest = meta.get(EXTRACTOR, "")

    @property
    def precisions(self) -> str:
        """The precisions that made its fields: "fp32", or "fp32,int8" after a change."""
        return ",".join(self._precisions)

    def note(
        self, sequence: int, runner: Runner | None
    ) -> tuple[dict[str, str], tuple[str, str] | None]:
        """Return what a field's durable step records of its extractor.

        Args:
            sequence: The field.
            runner: What extracted it; None where nothing was to extract.

        Returns:
            Changed names of the meta table, and the event where the extractor is another one.
        """
        if runner is None or runner.name == self._latest:
            return {}, None
        before, self._latest = self._latest, runner.name
        if runner.precision not in self._precisions:
            self._precisions.append(runner.precision)
        body = json.dumps({"sequence": sequence, "from": before, "to": runner.name})
        event = (CHANGED, body) if before else None
        return {EXTRACTOR: runner.name, PRECISION: self.precisions}, event
