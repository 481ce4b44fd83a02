"""Messages of the service as the values of `values`."""

from __future__ import annotations

import numpy as np

from edge_mil.client.values import FieldInfo, ModelInfo, MosaicInfo, ScoreInfo, SessionInfo
from edge_mil.rpc.results import decode_check, decode_measure, decode_score, epoch_seconds
from edge_mil.types import CellLayer, FieldResult, Float32Array, InfluenceMap, Verdict
from edge_mil.v1 import edge_mil_pb2 as pb

INSTANCE_NAMES = {pb.INSTANCE_KIND_GRID: "grid", pb.INSTANCE_KIND_FIELD: "field"}


def model_info(message: pb.ModelInfo) -> ModelInfo:
    """Return a bundle as a value."""
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
        precision=message.precision,
    )


def session_info(message: pb.Session) -> SessionInfo:
    """Return a session as a value."""
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
        light=message.light,
        geometry=decode_check(message.geometry),
        slide=decode_check(message.slide),
        camera=message.camera,
        camera_bound=message.camera_bound if message.HasField("camera_bound") else None,
        camera_note=message.camera_note,
    )


def score_info(
    message: pb.Score, bundle: str, state: str = "", *, heartbeat: bool = False
) -> ScoreInfo:
    """Return a score as a value."""
    return ScoreInfo(
        score=decode_score(message),
        revision=message.revision,
        fields=message.fields,
        coverage=message.coverage,
        bundle=bundle,
        state=state,
        heartbeat=heartbeat,
        light=message.light,
        geometry=message.geometry,
        slide=message.slide,
        camera=message.camera,
    )


def field_info(message: pb.FieldSummary) -> FieldInfo:
    """Return a field as a value."""
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
            light=message.score.light,
            explanation=message.explanation,
            geometry=message.score.geometry,
            slide=message.score.slide,
            camera=message.score.camera,
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
        suspect=message.suspect,
    )


def mosaic_info(message: pb.GetMosaicResponse) -> MosaicInfo | None:
    """Return a mosaic as a value, None where there is none yet."""
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
    """Return a layer of cells as a value."""
    return CellLayer(
        name=name,
        origin_x_um=message.origin_x_um,
        origin_y_um=message.origin_y_um,
        um_per_column=message.um_per_cell,
        um_per_row=message.um_per_row,
        values=_values(message),
    )


def influence_map(message: pb.GetHeatmapResponse) -> InfluenceMap:
    """Return a map of influence as a value."""
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
