"""The sentences that people read about a verdict and about the numbers behind it.

Every reader takes its sentence from here: the session's report, the operator in a terminal,
`edge-mil judge`, and docs/operator.md, which a test compares with this table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from edge_mil.types import Measure, Verdict

Reader: TypeAlias = Literal["report", "operator", "judge"]
"""Readers: a session's report, the operator at the microscope, the user of `edge-mil judge`."""


@dataclass(frozen=True, slots=True)
class VerdictText:
    """The words for one verdict; docs/operator.md shows the first two.

    Attributes:
        meaning: What happened to the field.
        advice: What the operator should do next.
        judge: What `edge-mil judge` says of an image, which belongs to no session; "" where it is
            what the operator reads.
    """

    meaning: str
    advice: str
    judge: str = ""


VERDICT_TEXT: Mapping[Verdict, VerdictText] = MappingProxyType(
    {
        Verdict.ACCEPTED: VerdictText("brought something new to the score", "go on", judge="good"),
        Verdict.DUPLICATE: VerdictText(
            "showed only what was counted before", "go on; looking twice never counts twice"
        ),
        Verdict.BLANK: VerdictText("empty glass", "go to tissue"),
        Verdict.BLURRED: VerdictText("out of focus", "turn the fine focus"),
        Verdict.MOVING: VerdictText(
            "the slide moved", "hold it still, or expose for a shorter time"
        ),
        Verdict.SATURATED: VerdictText(
            "too bright or too dark", "turn the lamp or change the exposure time"
        ),
        Verdict.UNLOCATED: VerdictText(
            "its position on the slide is not known", "go back to where the slide was last seen"
        ),
        Verdict.OUT_OF_DISTRIBUTION: VerdictText(
            "unlike what the model was made for", "check the stain, the objective and the colours"
        ),
        Verdict.DROPPED: VerdictText("the device was behind", "show the field once more"),
    }
)

MEASURE_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "black_share": "black pixels",
        "clipped_share": "clipped pixels",
        "tissue_share": "tissue",
        "background": "level of empty glass",
        "contrast": "contrast",
        "stillness": "stillness",
        "focus": "focus",
        "sharpness": "sharpness",
        "displacement_px": "moved by, px",
        "feature_distance": "distance from the model's tissue",
        "red_over_blue": "red over blue",
        "registration_response": "response",
        "registration_texture": "structure in common",
        "registration_lead": "lead over other positions",
        "registration_overlap": "overlap with an earlier field",
        "session_held": "the session is held",
    }
)
"""Name of a measure -> what people read instead; docs/imaging/gates.md explains the numbers."""


def verdict_sentence(verdict: Verdict, reader: Reader) -> str:
    """Return the sentence of a verdict for one reader."""
    text = VERDICT_TEXT[verdict]
    if reader == "report":
        return text.meaning
    if reader == "judge" and text.judge:
        return text.judge
    return f"{text.meaning}: {text.advice}"


def measure_sentence(measure: Measure) -> str:
    """Return a measure with its limit, as "focus 0.8, limit -1"."""
    limit = "" if math.isnan(measure.threshold) else f", limit {measure.threshold:.3g}"
    return f"{MEASURE_TEXT.get(measure.name, measure.name)} {measure.value:.3g}{limit}"


def unlocated_sentence(measures: Sequence[Measure]) -> str:
    """Return why an UNLOCATED field was not located, and the way back.

    Args:
        measures: Of the answer: what registration measured; `scale_ratio` where the field fits at
            another magnification; `stage_disagreement_um` where the image contradicts the stage;
            `last_seen_sequence`, `last_seen_x_um` and `last_seen_y_um` without a stage.
    """
    found = {measure.name: measure for measure in measures}
    if "scale_ratio" in found:
        return (
            f"The field fits its neighbours only at {found['scale_ratio'].value:g} times their "
            "magnification. Was the objective changed? Put the old one back, or open a session "
            "for the new one."
        )
    if "stage_disagreement_um" in found:
        return (
            f"The image lies {found['stage_disagreement_um'].value:.0f} µm from where the stage "
            "says. Was the slide pushed, or the stage not referenced?"
        )
    failed = next(
        (m for m in measures if m.name.startswith("registration_") and not m.passed), None
    )
    why = "The field was not recognised"
    if failed is not None:
        label = MEASURE_TEXT[failed.name]
        why += f" ({label} {failed.value:.2f}, {failed.threshold:.2f} needed)"
    if "last_seen_sequence" not in found:
        return f"{why}. Begin where there is tissue."
    x, y = found["last_seen_x_um"].value, found["last_seen_y_um"].value
    return (
        f"{why}. Go back to field {found['last_seen_sequence'].value:.0f}, last seen at "
        f"({x:.0f}, {y:.0f}) µm, and go on from there more slowly."
    )
