"""What a client learns of a service: its bundles, sessions, scores and fields, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_mil.renamed import renamed_attribute
from edge_mil.types import FieldResult, SessionCheck, SlideScore, Verdict


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One service.

    Attributes:
        version: Its version of edge_mil.
        instance_id: Changes when the service is started again.
        features: Optional parts of the protocol that it has.
        credits: Fields that one stream may have under way.
    """

    version: str
    instance_id: str
    features: tuple[str, ...]
    credits: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One bundle of the service.

    Attributes:
        name: As `open_session` takes it.
        digest: Digest of its manifest.
        state: STARTING, READY, FAILED or UNLOADED.
        detail: Why it failed, or where it runs.
        classes: Names of the outputs.
        instances: grid or field; "" for a bundle that takes no images.
        mpp: Pixel size that the model was trained at, um/px.
        tile_width_px: Columns of a tile.
        tile_height_px: Rows of a tile.
        background: Nominal colour of empty glass, RGB 0 to 255.
        min_difference: A pixel is tissue when a channel is at least this many grey levels darker
            than the background.
        min_share: A cell shows tissue when at least this share of its pixels is tissue.
        precision: What fields are extracted in now: fp32, fp16 or int8.
    """

    name: str
    digest: str
    state: str
    detail: str
    classes: tuple[str, ...]
    instances: str
    mpp: float
    tile_width_px: int
    tile_height_px: int
    background: tuple[float, ...]
    min_difference: float
    min_share: float
    precision: str = ""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Status of a session.

    Attributes:
        session_id: Its id.
        state: OPEN, SUSPENDED, CLOSED or EXPIRED.
        model: Its bundle.
        mpp: Pixel size of the camera, um/px.
        mpp_source: Where it came from: declared, optics or calibration.
        independent: Whether fields have locations instead of positions.
        durable_sequence: Every number up to it is answered and on the service's disk.
        durable_beyond: Single numbers above it of which the same is true.
        fields: How many fields got each verdict.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        score: Score; None while there is none.
        revision: Grows with each change of the score.
        created_s: Seconds since the epoch.
        calibration: Name of the calibration that it runs under; "" for none.
        calibration_digest: Digest of the same.
        light: Whether the empty glass seen agrees with the background: unproven, agrees or
            contradicted; "" where it is not checked.
        geometry: Whether pixel size and stage are those that the images show.
        slide: Whether the slide is still the one of the beginning.
        camera: "verified" where a passport says what the camera does to the score, and it is
            mended; "not verified" else; "" from a service without passports.
        camera_bound: The passport's 95 % bound of the shift of a score; None without one.
        camera_note: Why the camera is not verified.
    """

    session_id: str
    state: str
    model: ModelInfo
    mpp: float
    mpp_source: str
    independent: bool
    durable_sequence: int
    durable_beyond: tuple[int, ...]
    fields: Mapping[str, int]
    coverage: float
    score: SlideScore | None
    revision: int
    created_s: float
    calibration: str = ""
    calibration_digest: str = ""
    light: str = ""
    geometry: SessionCheck = field(default_factory=SessionCheck)
    slide: SessionCheck = field(default_factory=SessionCheck)
    camera: str = ""
    camera_bound: float | None = None
    camera_note: str = ""

    @property
    def last_sequence(self) -> int:
        """The largest number that is durable."""
        return max((self.durable_sequence, *self.durable_beyond))

    @property
    def instances(self) -> int:
        """How many instances the bag holds."""
        return self.score.instances if self.score else 0


@dataclass(frozen=True, slots=True)
class ScoreInfo:
    """A score and the fields behind it.

    Attributes:
        score: Score; None while there is none.
        revision: Grows with each change.
        fields: Fields whose instances are in the bag.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        bundle: Digest of the bundle.
        state: State of the session, from `watch`; "" elsewhere.
        heartbeat: Whether nothing changed, and the service only says that it is there.
        light: Whether the empty glass seen agrees with the background: unproven, agrees or
            contradicted; "" where it is not checked.
        geometry: State of the check of pixel size and stage; "" where the service has none.
        slide: State of the check of the slide.
        camera: As in `SessionInfo`.
    """

    score: SlideScore | None
    revision: int
    fields: int
    coverage: float
    bundle: str
    state: str = ""
    heartbeat: bool = False
    light: str = ""
    geometry: str = ""
    slide: str = ""
    camera: str = ""


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One answered field.

    Attributes:
        result: The answer that it got.
        cells: Instances in the bag that are of this field now.
        x_um: Stage x of its centre; None without a stage.
        y_um: Stage y of its centre; None without a stage.
        width_um: Its width on the slide.
        height_um: Its height on the slide.
        location_id: Name of its location, for independent fields.
        name: Where its frame came from.
        removed: Whether it was removed by hand.
        attention_share: Share of the bag's attention on it.
        influence: Logit with it minus without it; None unless it was asked for.
        suspect: Whether it was counted before a contradiction was found that concerns it.
    """

    result: FieldResult
    cells: int
    x_um: float | None
    y_um: float | None
    width_um: float
    height_um: float
    location_id: str
    name: str
    removed: bool
    attention_share: float
    influence: float | None
    suspect: bool = False

    place = renamed_attribute("FieldInfo", "place", "location_id")

    @property
    def sequence(self) -> int:
        """The field's sequence number."""
        return self.result.sequence

    @property
    def verdict(self) -> Verdict:
        """The field's verdict."""
        return self.result.verdict


@dataclass(frozen=True, slots=True)
class MosaicInfo:
    """The stitched image of the slide so far.

    Attributes:
        jpeg: The image, white where nothing was accepted.
        origin_x_um: Stage x of its top left corner.
        origin_y_um: Stage y of the same.
        um_per_px: Size of a pixel on the slide.
        columns: Its width, pixels.
        rows: Its height, pixels.
        as_of: Last field that it shows.
    """

    jpeg: bytes
    origin_x_um: float
    origin_y_um: float
    um_per_px: float
    columns: int
    rows: int
    as_of: int
