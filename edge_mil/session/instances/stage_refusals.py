"""Say why a field of a session with a stage was refused: in numbers, and in a sentence."""

from __future__ import annotations

import math

from edge_mil.imaging.registration import PairOutcome, StageComparison
from edge_mil.imaging.registration.stage_comparison import MAX_STAGE_ERROR_UM
from edge_mil.session.geometry import GeometryLog, Observation
from edge_mil.session.geometry.causes import cause_of
from edge_mil.types import Measure

HELD = Measure("session_held", 1.0, 0.0, False)
"""Of a field that was refused because a check holds the session."""


def refused_because(log: GeometryLog, observation: Observation, mpp: float) -> str:
    """Return why one field does not lie where the stage says."""
    moves = log.moves_of(observation)
    wrong = [move for move in moves if move.error_um > MAX_STAGE_ERROR_UM]
    cause = cause_of(wrong, mpp) if wrong and not log.proven else None
    if cause is not None:
        return cause.sentence
    if observation.scale_ratio != 1.0 or wrong:
        return ""  # the measures say it
    differs = [p.earlier for p in observation.pairs if p.outcome is PairOutcome.DIFFERS]
    if not differs:
        return ""
    earlier = differs[0]
    return (
        f"By its position the field should show a part of field {earlier}, and nothing of it "
        "is there. Was the slide moved or exchanged, or had the stage not settled?"
    )


def comparison_measures(comparison: StageComparison) -> tuple[Measure, ...]:
    """Return the numbers behind a comparison; none where the stage's position fits to the pixel."""
    found: list[Measure] = []
    if math.isfinite(comparison.response):
        found.append(
            Measure(
                "registration_response", comparison.response, comparison.needed, comparison.located
            )
        )
    if comparison.shift_px != (0, 0):
        found.append(Measure("stage_error_px", math.hypot(*comparison.shift_px)))
    if comparison.disagreement_um:
        found.append(
            Measure("stage_disagreement_um", comparison.disagreement_um, MAX_STAGE_ERROR_UM, False)
        )
    if comparison.scale_ratio != 1.0:
        found.append(Measure("scale_ratio", comparison.scale_ratio, 1.0, False))
    return tuple(found)
