"""Scores, fields and maps of the fake service."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from edge_mil.errors import SequenceError, UsageError
from edge_mil.rpc.pagination import page_of
from edge_mil.testing.service_base import FakeServicer, answered, streamed
from edge_mil.testing.service_rules import CLASSES
from edge_mil.testing.service_session import FakeSession
from edge_mil.types import RESEARCH_USE_ONLY, Float32Array
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

HEARTBEAT_S, WAKE_S = 10.0, 0.2
"""As the real service; how often a watcher looks whether its client is still there."""
MAX_TOP = 10
WHITE_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI//////////////////////////"
    "//////////////////////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/EABQQAQAAAAAAAAAAAAAAA"
    "AAAAAD/2gAIAQEAAD8Aa//Z"
)
"""One white pixel: the thumbnail of every field, and every mosaic."""


class FakeViews(FakeServicer, rpc.ViewServiceServicer):
    """Scores, fields and maps of what the sessions hold."""

    @answered
    def GetScore(self, request: Any, context: Any) -> pb.GetScoreResponse:  # noqa: N802
        return pb.GetScoreResponse(
            score=self.session(request.session_id).score_message(),
            bundle_digest=self.service.model.bundle_digest,
            notice=RESEARCH_USE_ONLY,
        )

    @streamed
    def WatchScore(  # noqa: N802
        self, request: pb.WatchScoreRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchScoreResponse]:
        session = self.session(request.session_id)
        last, said = (request.after_revision, -1), time.monotonic()
        while context.is_active():
            with self.service.changed:
                score, state = session.score_message(), session.state
                changed = score.revision > last[0] or state != last[1]
                if not changed and time.monotonic() - said < HEARTBEAT_S:
                    self.service.changed.wait(WAKE_S)
                    continue
            last, said = (max(score.revision, last[0]), state), time.monotonic()
            yield pb.WatchScoreResponse(
                score=score,
                heartbeat=not changed,
                state=state,
                bundle_digest=self.service.model.bundle_digest,
                notice=RESEARCH_USE_ONLY,
            )
            if state == pb.SESSION_STATE_CLOSED:
                return
            time.sleep(request.min_interval.ToMilliseconds() / 1000)

    @answered
    def ListFields(self, request: Any, context: Any) -> pb.ListFieldsResponse:  # noqa: N802
        session = self.session(request.session_id)
        page, token = page_of(sorted(session.fields), request.page_size, request.page_token)
        fields = [session.field_message(number) for number in page]
        return pb.ListFieldsResponse(fields=fields, next_page_token=token)

    @answered
    def GetField(self, request: Any, context: Any) -> pb.GetFieldResponse:  # noqa: N802
        session = self.session(request.session_id)
        if request.sequence not in session.fields:
            raise SequenceError(f"There is no field {request.sequence}.", reason="FIELD_NOT_FOUND")
        return pb.GetFieldResponse(field=session.field_message(request.sequence))

    @answered
    def GetTopFields(self, request: Any, context: Any) -> pb.GetTopFieldsResponse:  # noqa: N802
        session, name = self.session(request.session_id), class_named(request.class_name)
        influences = session.influences(name)
        top = sorted(influences, key=lambda number: (-abs(influences[number]), number))
        return pb.GetTopFieldsResponse(
            fields=[
                session.field_message(number, influences[number])
                for number in top[: request.count or MAX_TOP]
            ],
            revision=session.score_message().revision,
            class_name=name,
        )

    @answered
    def GetFieldThumbnail(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.GetFieldThumbnailResponse:
        field = self.session(request.session_id).fields.get(request.sequence)
        if field is None or not field.held:
            raise SequenceError(
                f"No thumbnail is kept of field {request.sequence}.", reason="FIELD_NOT_FOUND"
            )
        return pb.GetFieldThumbnailResponse(jpeg=WHITE_JPEG)

    @answered
    def GetHeatmap(self, request: Any, context: Any) -> pb.GetHeatmapResponse:  # noqa: N802
        session, name = self.session(request.session_id), class_named(request.class_name)
        if request.layer not in ("", "focus", "coverage"):
            raise UsageError(f"There is no layer {request.layer[:40]!r}.", field="layer")
        values = session.influences(name)
        if request.layer:
            values = {
                number: float(session.fields[number].frame.pixels.std())
                if request.layer == "focus"
                else 1.0
                for number in values
            }
        message = grid_of(session, values)
        message.revision = session.score_message().revision
        message.class_name = "" if request.layer else name
        return message

    @answered
    def GetMosaic(self, request: Any, context: Any) -> pb.GetMosaicResponse:  # noqa: N802
        session = self.session(request.session_id)
        held = [session.field_message(n) for n in session.influences(CLASSES[-1])]
        if not any(field.HasField("stage_x_um") for field in held):
            return pb.GetMosaicResponse()
        left = min(field.stage_x_um - field.width_um / 2 for field in held)
        top = min(field.stage_y_um - field.height_um / 2 for field in held)
        right = max(field.stage_x_um + field.width_um / 2 for field in held)
        return pb.GetMosaicResponse(
            jpeg=WHITE_JPEG,
            origin_x_um=left,
            origin_y_um=top,
            um_per_px=right - left,
            columns=1,
            rows=1,
            as_of_sequence=max(session.fields),
        )


def class_named(name: str) -> str:
    """Return the class that a request names; the last one where it names none.

    Raises:
        UsageError: There is no such class.
    """
    if name and name not in CLASSES:
        raise UsageError(f"The bundle has no class {name[:40]!r}.", field="class_name")
    return name or CLASSES[-1]


def grid_of(session: FakeSession, values: dict[int, float]) -> pb.GetHeatmapResponse:
    """Return numbers of fields on the grid of their positions, NaN where there is no field."""
    fields = [session.field_message(number) for number in values]
    if not fields:
        return pb.GetHeatmapResponse()
    width, height = fields[0].width_um, fields[0].height_um
    left = min(field.stage_x_um for field in fields)
    top = min(field.stage_y_um for field in fields)
    columns = [round((field.stage_x_um - left) / width) for field in fields]
    rows = [round((field.stage_y_um - top) / height) for field in fields]
    grid: Float32Array = np.full((max(rows) + 1, max(columns) + 1), np.nan, dtype=np.float32)
    grid[rows, columns] = list(values.values())
    return pb.GetHeatmapResponse(
        origin_x_um=left - width / 2,
        origin_y_um=top - height / 2,
        um_per_cell=width,
        um_per_row=height,
        columns=grid.shape[1],
        rows=grid.shape[0],
        values_f32le=grid.astype("<f4").tobytes(),
    )
