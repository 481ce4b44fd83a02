"""What the service tells, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_mil.rpc.results import decode_measure, decode_score, epoch_seconds
from edge_mil.types import CellLayer, FieldResult, Float32Array, InfluenceMap, SlideScore, Verdict
from edge_mil.v1 import edge_mil_pb2 as pb

INSTANCE_NAMES = {pb.INSTANCE_KIND_GRID: "grid", pb.INSTANCE_KIND_FIELD: "field"}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which service this is.

    Attributes:
        version: Of the package.
        instance_id: Changes when the service is started again.
        features: What it can do beyond the protocol's base.
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
        digest: Of its manifest.
        state: STARTING, READY, FAILED or UNLOADED.
        detail: Why it failed, or where it runs.
        classes: Names of the outputs.
        instances: grid or field; "" for a bundle that takes no images.
        mpp: Pixel size that the model was trained at, um/px.
        tile_width_px: Columns of one tile.
        tile_height_px: Rows of one tile.
        background: Nominal colour of empty glass, RGB 0 to 255.
        min_difference: Darker than the background by this much is tissue.
        min_share: Share of tissue pixels that makes a cell tissue.
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


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Where a session stands.

    Attributes:
        session_id: Its id.
        state: OPEN, SUSPENDED, CLOSED or EXPIRED.
        model: Its bundle.
        mpp: Pixel size of the camera, um/px.
        mpp_source: Who said so.
        independent: Whether fields have places instead of positions.
        durable_sequence: Every number up to it is answered and on the service's disk.
        durable_beyond: The same of single numbers above it.
        fields: How many fields got each verdict.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        score: Score; None while there is none.
        revision: Of the score.
        created_s: Seconds since the epoch.
        calibration: Name of the calibration that it runs under; "" for none.
        calibration_digest: Digest of the same.
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
    """A score and what it rests on.

    Attributes:
        score: Score; None while there is none.
        revision: Grows with each change.
        fields: Fields whose instances are in the bag.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        bundle: Digest of the bundle.
        state: Of the session, from `watch`; "" elsewhere.
        heartbeat: Nothing changed; the service says that it is there.
    """

    score: SlideScore | None
    revision: int
    fields: int
    coverage: float
    bundle: str
    state: str = ""
    heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One answered field.

    Attributes:
        result: The answer that it got.
        cells: Instances of the bag that are this field's now.
        x_um: Stage x of its centre; None without a stage.
        y_um: Stage y of its centre; None without a stage.
        width_um: Its width on the slide.
        height_um: Its height on the slide.
        location_id: Its place, for independent fields.
        name: Where its frame came from.
        removed: Whether it was removed by hand.
        attention_share: Share of the bag's attention on it.
        influence: Logit with it minus without it; None unless it was asked for.
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

    @property
    def sequence(self) -> int:
        """The field's number."""
        return self.result.sequence

    @property
    def verdict(self) -> Verdict:
        """What became of the field."""
        return self.result.verdict


def model_info(message: pb.ModelInfo) -> ModelInfo:
    """Return a bundle's message as a value."""
    return ModelInfo(
        name=message.bundle_id,
        digest=message.bundle_digest,
        state=message.state,
        detail=message.detail,
        classes=tuple(message.class_names),
        instances=INSTANCE_NAMES.get(message.instances, ""),
        mpp=message.expected_mpp,
        tile_width_px=message.tile_width_px,
        tile_height_px=message.tile_height_px,
        background=tuple(message.tissue.background),
        min_difference=message.tissue.min_difference,
        min_share=message.tissue.min_share,
    )


def session_info(message: pb.Session) -> SessionInfo:
    """Return a session's message as a value."""
    return SessionInfo(
        session_id=message.session_id,
        state=state_name(message.state),
        model=model_info(message.model),
        mpp=message.mpp,
        mpp_source=message.mpp_source,
        independent=message.independent,
        durable_sequence=message.durable_sequence,
        durable_beyond=tuple(message.durable_beyond),
        fields={verdict_name(entry.verdict): entry.count for entry in message.verdicts},
        coverage=message.coverage,
        score=decode_score(message.score),
        revision=message.revision,
        created_s=epoch_seconds(message.create_time),
        calibration=message.calibration_id,
        calibration_digest=message.calibration_digest,
    )


def score_info(
    message: pb.Score, bundle: str, state: str = "", *, heartbeat: bool = False
) -> ScoreInfo:
    """Return a score's message as a value."""
    return ScoreInfo(
        score=decode_score(message),
        revision=message.revision,
        fields=message.fields,
        coverage=message.coverage,
        bundle=bundle,
        state=state,
        heartbeat=heartbeat,
    )


def field_info(message: pb.FieldSummary) -> FieldInfo:
    """Return a field's message as a value."""
    return FieldInfo(
        result=FieldResult(
            sequence=message.sequence,
            verdict=Verdict(message.verdict),
            measures=tuple(decode_measure(measure) for measure in message.measures),
            score=decode_score(message.score),
            revision=message.score.revision,
            fields_held=message.score.fields,
            coverage=message.coverage,
            cells_added=message.cells_added,
            cells_improved=message.cells_improved,
            cells_held=message.cells_held,
        ),
        cells=message.cells,
        x_um=message.stage_x_um if message.HasField("stage_x_um") else None,
        y_um=message.stage_y_um if message.HasField("stage_y_um") else None,
        width_um=message.width_um,
        height_um=message.height_um,
        location_id=message.place,
        name=message.name,
        removed=message.removed,
        attention_share=message.attention_share,
        influence=message.influence if message.HasField("influence") else None,
    )


@dataclass(frozen=True, slots=True)
class MosaicInfo:
    """The slide as far as it was seen.

    Attributes:
        jpeg: The picture, white where nothing was accepted.
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


def mosaic_info(message: pb.GetMosaicResponse) -> MosaicInfo | None:
    """Return a mosaic's message as a value, None where there is none yet."""
    if not message.jpeg:
        return None
    return MosaicInfo(
        jpeg=message.jpeg,
        origin_x_um=message.origin_x_um,
        origin_y_um=message.origin_y_um,
        um_per_px=message.um_per_px,
        columns=message.columns,
        rows=message.rows,
        as_of=message.as_of_sequence,
    )


def cell_layer(name: str, message: pb.GetHeatmapResponse) -> CellLayer:
    """Return a layer's message as a value."""
    return CellLayer(
        name=name,
        origin_x_um=message.origin_x_um,
        origin_y_um=message.origin_y_um,
        um_per_column=message.um_per_cell,
        um_per_row=message.um_per_row,
        values=_values(message),
    )


def heat_map(message: pb.GetHeatmapResponse) -> InfluenceMap:
    """Return a heat map's message as a value."""
    return InfluenceMap(
        class_name=message.class_name,
        origin_x_um=message.origin_x_um,
        origin_y_um=message.origin_y_um,
        um_per_column=message.um_per_cell,
        um_per_row=message.um_per_row,
        values=_values(message),
        revision=message.revision,
    )


def _values(message: pb.GetHeatmapResponse) -> Float32Array:
    flat = np.frombuffer(message.values_f32le, dtype="<f4").astype(np.float32)
    return flat.reshape(message.rows, message.columns)


def verdict_name(number: int) -> str:
    """Return a verdict without its prefix; a newer service's unknown one as its number."""
    return Verdict(number).name if number in set(Verdict) else str(number)


def state_name(number: int) -> str:
    """Return a session's state without its prefix; an unknown one as its number."""
    names = {value: name for name, value in pb.SessionState.items()}
    return names.get(number, str(number)).removeprefix("SESSION_STATE_")  # type: ignore[call-overload, no-any-return]
