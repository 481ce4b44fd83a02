"""What a session tells others: values, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_mil.renamed import renamed_attribute
from edge_mil.types import FieldResult, SlideScore, UInt8Array, Verdict


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """Where the session stands.

    Attributes:
        score: Score of the bag; None while it is empty.
        revision: Counts the changes of the bag; the score is a function of it.
        instances: Instances in the bag.
        fields_held: Fields whose instances are in the bag.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        verdicts: How many fields got each verdict.
        last_sequence: Largest sequence number answered; 0 before the first.
        durable_sequence: Every number up to it is answered.
        durable_beyond: Answered numbers above it.
        closed: Whether the session takes no more fields.
        as_of: Last field that the score covers, where the head is scored in the background;
            None: all.
    """

    score: SlideScore | None = None
    revision: int = 0
    instances: int = 0
    fields_held: int = 0
    coverage: float = 0.0
    verdicts: Mapping[Verdict, int] = field(default_factory=dict)
    last_sequence: int = 0
    durable_sequence: int = 0
    durable_beyond: tuple[int, ...] = ()
    closed: bool = False
    as_of: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SlideMosaic:
    """The slide as far as it was seen.

    Attributes:
        pixels: RGB uint8, shape (h, w, 3); white where nothing was accepted.
        origin_x_um: Stage x of its top left corner.
        origin_y_um: Stage y of the same.
        um_per_px: Size of a pixel on the slide.
        as_of: Last field that it shows.
    """

    pixels: UInt8Array
    origin_x_um: float
    origin_y_um: float
    um_per_px: float
    as_of: int


@dataclass(frozen=True, slots=True)
class FieldRecord:
    """One field as the session remembers it.

    Attributes:
        result: The answer that it got.
        cells: Instances of it that are in the bag now.
        x_um: Stage x of its centre; None without a stage.
        y_um: Stage y of its centre; None without a stage.
        width_um: Its width on the slide.
        height_um: Its height on the slide.
        location_id: Its place, for independent fields.
        name: The client's name for it.
        capture_time_s: Seconds since the epoch; 0 when unknown.
        removed: Whether it was removed by hand.
        attention_share: Share of the bag's attention on its instances, mean over the channels.
        influence: Logit of the asked class with it minus without it; None when it holds nothing.
    """

    result: FieldResult
    cells: int
    x_um: float | None
    y_um: float | None
    width_um: float
    height_um: float
    location_id: str
    name: str
    capture_time_s: float
    removed: bool
    attention_share: float = 0.0
    influence: float | None = None

    place = renamed_attribute("FieldRecord", "place", "location_id")

    @property
    def sequence(self) -> int:
        """The client's number."""
        return self.result.sequence

    @property
    def verdict(self) -> Verdict:
        """What became of it."""
        return self.result.verdict
