"""Answers, scores, measures, regions and times: values to messages and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from edge_mil.types import (
    CheckState,
    FieldResult,
    Measure,
    Region,
    SessionCheck,
    SlideScore,
    Verdict,
)
from edge_mil.v1 import edge_mil_pb2 as pb

Stage: TypeAlias = Literal["receive", "decode", "gate", "extract", "fold", "commit", "queue"]

STAGES: tuple[Stage, ...] = ("receive", "decode", "gate", "extract", "fold", "commit", "queue")
"""Names of the stages in `v1.Timings`."""

NANOS = 1_000_000_000
"""Of a second."""


def encode_result(result: FieldResult) -> pb.FieldResult:
    """Return the answer to one field as a message; the same value always gives the same message.

    The session stores it before the field is committed, so a stored answer has no time of that.
    """
    message = pb.FieldResult(
        sequence=result.sequence,
        verdict=encode_verdict(result.verdict),
        measures=[encode_measure(measure) for measure in result.measures],
        tiles=result.cells_added + result.cells_improved,
        durable=True,
        cells_added=result.cells_added,
        cells_improved=result.cells_improved,
        cells_held=result.cells_held,
        explanation=result.explanation,
    )
    message.score.CopyFrom(
        encode_score(
            result.score,
            revision=result.revision,
            fields=result.fields_held,
            coverage=result.coverage,
            as_of_sequence=result.sequence if result.as_of is None else result.as_of,
            light=result.light,
            checks=(result.geometry, result.slide),
            camera=result.camera,
        )
    )
    add_timings(message, result.timings_s)
    return message


def decode_result(message: pb.FieldResult) -> FieldResult:
    """Return an answer that holds a verdict, not an error, as a value."""
    timings: dict[str, float] = {
        stage: _seconds(getattr(message.timings, stage))
        for stage in STAGES
        if message.timings.HasField(stage)
    }
    return FieldResult(
        sequence=message.sequence,
        verdict=Verdict(message.verdict),
        measures=tuple(decode_measure(measure) for measure in message.measures),
        score=decode_score(message.score),
        revision=message.score.revision,
        fields_held=message.score.fields,
        coverage=message.score.coverage,
        cells_added=message.cells_added,
        cells_improved=message.cells_improved,
        cells_held=message.cells_held,
        timings_s=timings,
        light=message.score.light,
        explanation=message.explanation,
        geometry=message.score.geometry,
        slide=message.score.slide,
        camera=message.score.camera,
    )


def encode_verdict(verdict: Verdict) -> pb.Verdict.ValueType:
    """Return a verdict as the wire has it: the numbers are the same."""
    return cast("pb.Verdict.ValueType", int(verdict))


def add_timings(message: pb.FieldResult, timings_s: Mapping[str, float]) -> None:
    """Write the seconds of each stage into an answer; stages that the wire lacks are left out."""
    for stage in STAGES:
        if stage in timings_s:
            getattr(message.timings, stage).CopyFrom(duration(timings_s[stage]))


def encode_measure(measure: Measure) -> pb.Measure:
    """Return a measure, a number that a verdict rests on, as a message."""
    return pb.Measure(
        name=measure.name,
        value=measure.value,
        threshold=measure.threshold,
        passed=measure.passed,
    )


def decode_measure(message: pb.Measure) -> Measure:
    """Return a measure as a value."""
    return Measure(message.name, message.value, message.threshold, message.passed)


def encode_score(
    score: SlideScore | None,
    *,
    revision: int,
    fields: int,
    coverage: float,
    as_of_sequence: int = 0,
    light: str = "",
    checks: tuple[str, str] = ("", ""),
    camera: str = "",
) -> pb.Score:
    """Return a score as a message; one without classes says that there is no score yet.

    `checks` are the states of the session's checks of geometry and slide.
    """
    message = pb.Score(
        revision=revision,
        fields=fields,
        coverage=coverage,
        as_of_sequence=as_of_sequence,
        light=light,
        geometry=checks[0],
        slide=checks[1],
        camera=camera,
    )
    if score is None:
        return message
    message.instances = score.instances
    for at, (name, logit) in enumerate(zip(score.classes, score.logits, strict=True)):
        entry = message.classes.add(name=name, logit=logit)
        if score.probabilities:
            entry.probability = score.probabilities[at]
    if score.value is not None:
        message.value = score.value
    message.pooled.extend(score.pooled)
    message.hazards.extend(score.hazards)
    message.survival.extend(score.survival)
    return message


def decode_score(message: pb.Score) -> SlideScore | None:
    """Return a score as a value, None where there is none yet."""
    if not (message.classes or message.pooled or message.HasField("value")):
        return None
    return SlideScore(
        classes=tuple(entry.name for entry in message.classes),
        logits=tuple(entry.logit for entry in message.classes),
        probabilities=tuple(
            entry.probability for entry in message.classes if entry.HasField("probability")
        ),
        instances=message.instances,
        value=message.value if message.HasField("value") else None,
        hazards=tuple(message.hazards),
        survival=tuple(message.survival),
        pooled=tuple(message.pooled),
    )


def encode_check(check: SessionCheck) -> pb.SessionCheck:
    """Return what a session takes for granted, compared with what it sees, as a message."""
    message = pb.SessionCheck(
        state=check.state.value,
        sentence=check.sentence,
        cause=check.cause,
        held=check.held,
        since_sequence=check.since,
        pairs=check.pairs,
    )
    if check.scale is not None:
        message.scale, message.scale_error = check.scale
    if check.rotation_deg is not None:
        message.rotation_deg, message.rotation_error_deg = check.rotation_deg
    if check.backlash_um is not None:
        message.backlash_um, message.backlash_error_um = check.backlash_um
    return message


def decode_check(message: pb.SessionCheck) -> SessionCheck:
    """Return a check as a value; an unknown state of a newer service counts as unproven."""
    known = message.state in {state.value for state in CheckState}
    return SessionCheck(
        state=CheckState(message.state) if known else CheckState.UNPROVEN,
        sentence=message.sentence,
        cause=message.cause,
        held=message.held,
        since=message.since_sequence,
        pairs=message.pairs,
        scale=(message.scale, message.scale_error) if message.HasField("scale") else None,
        rotation_deg=(message.rotation_deg, message.rotation_error_deg)
        if message.HasField("rotation_deg")
        else None,
        backlash_um=(message.backlash_um, message.backlash_error_um)
        if message.HasField("backlash_um")
        else None,
    )


def encode_regions(regions: Iterable[Region]) -> list[pb.Region]:
    """Return rectangles of the slide as messages."""
    return [
        pb.Region(x_um=r.x_um, y_um=r.y_um, width_um=r.width_um, height_um=r.height_um)
        for r in regions
    ]


def decode_regions(messages: Iterable[pb.Region]) -> tuple[Region, ...]:
    """Return rectangles of the slide, stage um; the caller checks that the numbers are finite."""
    return tuple(Region(m.x_um, m.y_um, m.width_um, m.height_um) for m in messages)


def duration(seconds: float) -> Duration:
    """Return seconds as a protobuf duration."""
    whole = math.floor(seconds)
    return Duration(seconds=whole, nanos=min(NANOS - 1, round((seconds - whole) * NANOS)))


def timestamp(seconds: float) -> Timestamp:
    """Return seconds since the epoch as a protobuf timestamp."""
    whole = math.floor(seconds)
    return Timestamp(seconds=whole, nanos=min(NANOS - 1, round((seconds - whole) * NANOS)))


def epoch_seconds(message: Timestamp) -> float:
    """Return a protobuf timestamp as seconds since the epoch."""
    return message.seconds + message.nanos / NANOS


def _seconds(message: Duration) -> float:
    return message.seconds + message.nanos / NANOS
