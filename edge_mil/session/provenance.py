"""Which runner extracted the fields of a session: stored, with each change."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edge_mil.pipeline.runners.runner import Runner

PRECISION, EXTRACTOR = "precision", "extractor"
"""Names in the file's meta table: all precisions used, in the order of their first use; and the
name of the latest runner."""
CHANGED = "extractor"
"""Kind of the event."""


class RunnerHistory:
    """Notes which runner extracted the fields of a session.

    A service may move a session to another backend or precision between two fields, within the
    bundle's fidelity bound. Each such change is stored as an event.
    """

    def __init__(self, meta: Mapping[str, str]) -> None:
        """Continue from the meta table of a session's file."""
        self._precisions = [p for p in meta.get(PRECISION, "").split(",") if p]
        self._latest = meta.get(EXTRACTOR, "")

    @property
    def precisions(self) -> str:
        """The precisions used so far: "fp32", or "fp32,int8" after a change."""
        return ",".join(self._precisions)

    def note(
        self, sequence: int, runner: Runner | None
    ) -> tuple[dict[str, str], tuple[str, str] | None]:
        """Note the runner of a field.

        Args:
            sequence: Number of the field.
            runner: What extracted it; None where there was nothing to extract.

        Returns:
            Changed names of the meta table; and the event, (kind, JSON), where the runner is
            another one than before.
        """
        if runner is None or runner.name == self._latest:
            return {}, None
        before, self._latest = self._latest, runner.name
        if runner.precision not in self._precisions:
            self._precisions.append(runner.precision)
        body = json.dumps({"sequence": sequence, "from": before, "to": runner.name})
        event = (CHANGED, body) if before else None
        return {EXTRACTOR: runner.name, PRECISION: self.precisions}, event
