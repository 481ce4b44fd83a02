"""What clients are told of a session and of its fields, as messages."""

from __future__ import annotations

from edge_mil.rpc.results import encode_measure, encode_score, encode_verdict, timestamp
from edge_mil.service.sessions.live_session import LiveSession, score_of
from edge_mil.session import FieldRecord, SessionSummary
from edge_mil.types import Verdict
from edge_mil.v1 import edge_mil_pb2 as pb


def session_message(hosted: LiveSession) -> pb.Session:
    """Return where an open session stands."""
    session, standing = hosted.session, hosted.session.standing()
    settings = session.settings
    message = pb.Session(
        session_id=session.session_id,
        state=hosted.state(),
        durable_sequence=standing.durable_sequence,
        durable_beyond=standing.durable_beyond,
        model=hosted.bundle.info(),
        mpp=settings.mpp,
        mpp_source=settings.mpp_source,
        fields_accepted=standing.verdicts.get(Verdict.ACCEPTED, 0),
        create_time=timestamp(session.created),
        revision=standing.revision,
        coverage=standing.coverage,
        score=score_of(standing),
        independent=settings.independent,
        slide_label=settings.slide_label,
        labels=dict(settings.labels),
        calibration_id=settings.calibration_id,
        calibration_digest=settings.calibration_digest,
    )
    for verdict in sorted(standing.verdicts):
        message.verdicts.add(verdict=encode_verdict(verdict), count=standing.verdicts[verdict])
    return message


def summary_message(summary: SessionSummary) -> pb.Session:
    """Return what is known of a session that is not open in this process."""
    settings = summary.settings
    return pb.Session(
        session_id=summary.session_id,
        state=pb.SESSION_STATE_CLOSED if summary.closed else pb.SESSION_STATE_SUSPENDED,
        model=pb.ModelInfo(bundle_id=summary.bundle_name, bundle_digest=summary.bundle_digest),
        mpp=settings.mpp,
        mpp_source=settings.mpp_source,
        create_time=timestamp(summary.created),
        independent=settings.independent,
        slide_label=settings.slide_label,
        labels=dict(settings.labels),
        calibration_id=settings.calibration_id,
        calibration_digest=settings.calibration_digest,
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
        ),
        measures=[encode_measure(measure) for measure in result.measures],
        width_um=record.width_um,
        height_um=record.height_um,
        name=record.name,
        cells_added=result.cells_added,
        cells_improved=result.cells_improved,
        cells_held=result.cells_held,
        attention_share=record.attention_share,
    )
    if record.x_um is not None and record.y_um is not None:
        message.stage_x_um, message.stage_y_um = record.x_um, record.y_um
    if record.capture_time_s:
        message.capture_time.CopyFrom(timestamp(record.capture_time_s))
    if record.influence is not None:
        message.influence = record.influence
    return message
