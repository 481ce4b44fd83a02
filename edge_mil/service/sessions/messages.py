"""Sessions, scores and fields as messages for clients."""

from __future__ import annotations

from edge_mil.rpc.results import (
    encode_check,
    encode_measure,
    encode_score,
    encode_verdict,
    timestamp,
)
from edge_mil.session import (
    DamagedSession,
    FieldRecord,
    Session,
    SessionSettings,
    SessionStatus,
    SessionSummary,
)
from edge_mil.types import Verdict
from edge_mil.v1 import edge_mil_pb2 as pb


def session_message(
    session: Session, state: pb.SessionState.ValueType, model: pb.ModelInfo
) -> pb.Session:
    """Return the status of an open session."""
    status = session.status()
    message = _settings_message(session.session_id, session.created, session.settings)
    message.state = state
    message.model.CopyFrom(model)
    message.durable_sequence = status.durable_sequence
    message.durable_beyond.extend(status.durable_beyond)
    message.fields_accepted = status.verdicts.get(Verdict.ACCEPTED, 0)
    message.revision = status.revision
    message.coverage = status.coverage
    message.light = status.light
    message.geometry.CopyFrom(encode_check(status.geometry))
    message.slide.CopyFrom(encode_check(status.slide))
    message.score.CopyFrom(score_message(status))
    for verdict in sorted(status.verdicts):
        message.verdicts.add(verdict=encode_verdict(verdict), count=status.verdicts[verdict])
    return message


def summary_message(summary: SessionSummary | DamagedSession) -> pb.Session:
    """Return what the file says of a session that is not open in this process."""
    if isinstance(summary, DamagedSession):
        return pb.Session(
            session_id=summary.session_id,
            state=pb.SESSION_STATE_DAMAGED,
            problem=summary.problem,
        )
    message = _settings_message(summary.session_id, summary.created, summary.settings)
    message.state = pb.SESSION_STATE_SUSPENDED
    if summary.closed:
        message.state = state_of_closed(expired=summary.expired)
    message.model.bundle_id = summary.bundle_name
    message.model.bundle_digest = summary.bundle_digest
    return message


def state_of_closed(*, expired: bool) -> pb.SessionState.ValueType:
    """Return the state of a session that takes no more fields."""
    return pb.SESSION_STATE_EXPIRED if expired else pb.SESSION_STATE_CLOSED


def score_message(status: SessionStatus) -> pb.Score:
    """Return the running score of a session."""
    return encode_score(
        status.score,
        revision=status.revision,
        fields=status.fields_held,
        coverage=status.coverage,
        as_of_sequence=status.last_sequence if status.as_of is None else status.as_of,
        light=status.light,
        checks=(status.geometry.state.value, status.slide.state.value),
        camera=status.camera,
    )


def field_message(record: FieldRecord) -> pb.FieldSummary:
    """Return one answered field."""
    result = record.result
    message = pb.FieldSummary(
        sequence=result.sequence,
        verdict=encode_verdict(result.verdict),
        cells=record.cells,
        removed=record.removed,
        place=record.location_id,
        coverage=result.coverage,
        score=encode_score(
            result.score,
            revision=result.revision,
            fields=result.fields_held,
            coverage=result.coverage,
            as_of_sequence=result.sequence if result.as_of is None else result.as_of,
            light=result.light,
            checks=(result.geometry, result.slide),
            camera=result.camera,
        ),
        measures=[encode_measure(measure) for measure in result.measures],
        width_um=record.width_um,
        height_um=record.height_um,
        name=record.name,
        cells_added=result.cells_added,
        cells_improved=result.cells_improved,
        cells_held=result.cells_held,
        attention_share=record.attention_share,
        suspect=record.suspect,
        explanation=result.explanation,
    )
    if record.x_um is not None and record.y_um is not None:
        message.stage_x_um, message.stage_y_um = record.x_um, record.y_um
    if record.capture_time_s:
        message.capture_time.CopyFrom(timestamp(record.capture_time_s))
    if record.influence is not None:
        message.influence = record.influence
    return message


def _settings_message(session_id: str, created: float, settings: SessionSettings) -> pb.Session:
    message = pb.Session(
        session_id=session_id,
        mpp=settings.mpp,
        mpp_source=settings.mpp_source,
        create_time=timestamp(created),
        independent=settings.independent,
        slide_label=settings.slide_label,
        labels=dict(settings.labels),
        calibration_id=settings.calibration_id,
        calibration_digest=settings.calibration_digest,
        camera=settings.camera,
        camera_note=settings.camera_note,
    )
    if settings.camera_bound is not None:
        message.camera_bound = settings.camera_bound
    return message
