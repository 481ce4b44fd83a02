"""What a report shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_mil.types import CellLayer, InfluenceMap, Region, SlideScore, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class SlidePicture:
    """The slide as far as it was seen.

    Attributes:
        image: JPEG.
        region: Where it lies, stage um.
    """

    image: bytes
    region: Region


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """The session after one field.

    Attributes:
        sequence: The field's number.
        verdict: Its verdict.
        value: Probability of the class shown, else its logit; None while there was no score.
        coverage: 0 to 1.
    """

    sequence: int
    verdict: Verdict
    value: float | None
    coverage: float


@dataclass(frozen=True, slots=True, eq=False)
class TopField:
    """A field that moved the score.

    Attributes:
        sequence: Its number.
        influence: Logit with the field minus logit without it.
        thumbnail: JPEG.
        region: Where it lies, stage um; None without a stage.
    """

    sequence: int
    influence: float
    thumbnail: bytes
    region: Region | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReportContent:
    """What the page of one session shows.

    Attributes:
        title: Name of the slide.
        subtitle: When it was read, and by which program.
        bundle_name: Name and version of the bundle.
        bundle_digest: Its digest, "sha256:...".
        class_name: Whose score and influence are shown.
        score: The last score; None when there was none.
        coverage: Share held of the tissue cells known, 0 to 1.
        history: The session after each field, in order.
        verdicts: How many fields got each verdict.
        picture: The slide; None where the fields have no positions.
        heat_map: Influence of each cell; None without positions.
        layers: How the slide was seen: focus and coverage; empty without positions.
        top_fields: Those that moved the score most, largest influence first.
        settings: What the session was opened with: name -> value, shown as they are.
        about_model: What the model is and was trained on, in paragraphs.
        warning: A sentence that stands above everything; "" for none.
    """

    title: str
    subtitle: str
    bundle_name: str
    bundle_digest: str
    class_name: str
    score: SlideScore | None
    coverage: float
    history: tuple[HistoryPoint, ...]
    verdicts: Mapping[Verdict, int]
    picture: SlidePicture | None = None
    heat_map: InfluenceMap | None = None
    layers: tuple[CellLayer, ...] = ()
    top_fields: tuple[TopField, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    about_model: tuple[str, ...] = ()
    warning: str = ""
