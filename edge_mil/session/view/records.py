"""Values that a session returns about its fields and its mosaic."""

from __future__ import annotations

from dataclasses import dataclass

from edge_mil.renamed import renamed_attribute
from edge_mil.types import FieldResult, UInt8Array, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class SlideMosaic:
    """The mosaic of a slide, as far as it was seen.

    Attributes:
        pixels: RGB uint8, shape (h, w, 3); white where nothing was accepted.
        origin_x_um: Stage x of its top left corner.
        origin_y_um: Stage y of the same.
        um_per_px: Size of a pixel on the slide.
        as_of: Sequence of the last field in it.
    """

    pixels: UInt8Array
    origin_x_um: float
    origin_y_um: float
    um_per_px: float
    as_of: int


@dataclass(frozen=True, slots=True)
class FieldRecord:
    """One field with its answer, as it is stored.

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
        suspect: Whether it was taken before a contradiction was found that concerns it.
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
    suspect: bool = False

    place = renamed_attribute("FieldRecord", "place", "location_id")

    @property
    def sequence(self) -> int:
        """The client's number."""
        return self.result.sequence

    @property
    def verdict(self) -> Verdict:
        """What became of it."""
        return self.result.verdict
