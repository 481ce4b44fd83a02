"""What an operator is told of a field that has no place, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mil.types import Measure


def why_unlocated(measures: Sequence[Measure]) -> str:
    """Return one or two sentences for an UNLOCATED field, from the numbers of its verdict.

    Args:
        measures: Of the verdict: `registration_response`; `scale_ratio` where the field fits at
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
    response = said.get("registration_response")
    why = "The place was not recognised"
    if response is not None:
        why += f" (response {response.value:.2f}, {response.threshold:.2f} needed)"
    if "last_seen_sequence" not in said:
        return f"{why}; begin where there is tissue to be seen."
    x, y = said["last_seen_x_um"].value, said["last_seen_y_um"].value
    return (
        f"{why}; go back to field {said['last_seen_sequence'].value:.0f}, last seen at "
        f"({x:.0f}, {y:.0f}) um, and go on from there more slowly."
    )
