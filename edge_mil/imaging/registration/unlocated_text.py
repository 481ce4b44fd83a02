"""What an operator is told of a field that has no place, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mil.types import Measure

NEEDED = {
    "registration_response": "response",
    "registration_texture": "structure in common",
    "registration_lead": "lead over other places",
    "registration_overlap": "overlap with a field before",
}
"""What a registration needs, as an operator may read it."""


def why_unlocated(measures: Sequence[Measure]) -> str:
    """Return one or two sentences for an UNLOCATED field, from the numbers of its verdict.

    Args:
        measures: Of the verdict: what a registration needs; `scale_ratio` where the field fits at
            another magnification; `stage_disagreement_um` where the picture contradicts the
            stage; `last_seen_sequence`, `last_seen_x_um` and `last_seen_y_um` without a stage.
    """
    said = {measure.name: measure for measure in measures}
    if "scale_ratio" in said:
        return (
            f"The field fits its neighbours only at {said['scale_ratio'].value:g} times their "
            "magnification: the objective was changed? Put the old one back, or open a session "
            "for the new one."
        )
    if "stage_disagreement_um" in said:
        return (
            f"The picture lies {said['stage_disagreement_um'].value:.0f} um from where the stage "
            "says; was the slide pushed, or the stage not referenced?"
        )
    why = "The place was not recognised"
    short = next((m for m in measures if m.name in NEEDED and not m.passed), None)
    if short is not None:
        why += f" ({NEEDED[short.name]} {short.value:.2f}, {short.threshold:.2f} needed)"
    if "last_seen_sequence" not in said:
        return f"{why}; begin where there is tissue to be seen."
    x, y = said["last_seen_x_um"].value, said["last_seen_y_um"].value
    return (
        f"{why}; go back to field {said['last_seen_sequence'].value:.0f}, last seen at "
        f"({x:.0f}, {y:.0f}) um, and go on from there more slowly."
    )
