"""What the fields of a session said of its light: unproven, agrees or contradicted."""

from __future__ import annotations

import dataclasses
import json

from edge_mil.imaging.quality.light import LightReading
from edge_mil.session.field.gate import GatedFrame
from edge_mil.types import Measure, Verdict

UNPROVEN, AGREES, CONTRADICTED = "unproven", "agrees", "contradicted"
"""States: no field has shown empty glass yet; the last one that did agrees; it does not."""

NOT_CHECKED = ""
"""State of a session whose light is not compared: its instances are whole fields, whose tissue test
only refuses empty ones, or an earlier release opened it."""

HOLDS_FROM = 2
"""Contradictions in a row from which a field that shows no glass is refused too. One may be a
bubble or a pen mark."""


class LightHistory:
    """Counts contradictions; one owner, changed only when a field is committed.

    It never changes a threshold or a correction (`docs/design/imaging.md`, "The light is checked,
    never learnt").

    Attributes:
        state: UNPROVEN, AGREES, CONTRADICTED, or NOT_CHECKED.
        contradictions: Fields in a row that contradicted the background.
    """

    def __init__(self, *, checked: bool, insisted: bool = False) -> None:
        """Begin with nothing shown.

        Args:
            checked: Whether fields are compared at all.
            insisted: The user insists: nothing is refused, and the state still says what was seen.
        """
        self.state = UNPROVEN if checked else NOT_CHECKED
        self.contradictions = 0
        self._insisted = insisted

    def hold(self, gated: GatedFrame) -> GatedFrame:
        """Return a field as the light allows: refused where earlier ones contradict; no change."""
        if self._insisted:
            return gated
        if gated.verdict is Verdict.SATURATED or gated.light.agrees or gated.light.contradicts:
            return gated
        if self.contradictions < HOLDS_FROM:
            return gated
        held = Measure("light_contradictions", self.contradictions, HOLDS_FROM - 1, False)
        measures = (*gated.measures, held)
        return dataclasses.replace(gated, verdict=Verdict.WRONG_LIGHT, measures=measures)

    def after(self, reading: LightReading) -> tuple[str, int]:
        """Return state and contradictions after a field; changes nothing."""
        if self.state == NOT_CHECKED or not (reading.agrees or reading.contradicts):
            return self.state, self.contradictions
        if reading.agrees:
            return AGREES, 0
        return CONTRADICTED, self.contradictions + 1

    def note(self, reading: LightReading) -> dict[str, str]:
        """Note what a committed field says; return what of it the meta table stores."""
        before = (self.state, self.contradictions)
        self.state, self.contradictions = self.after(reading)
        return {} if (self.state, self.contradictions) == before else {LIGHT: self.to_json()}

    def to_json(self) -> str:
        return json.dumps([self.state, self.contradictions])

    def restore(self, text: str) -> None:
        """Take over what `to_json` wrote; "" is nothing."""
        if text:
            self.state, self.contradictions = json.loads(text)


LIGHT = "light"
"""Name of the history in the meta table of the session's file."""
