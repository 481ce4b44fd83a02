"""Bundles, sessions and calibrations of the fake service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from edge_mil.errors import (
    CalibrationError,
    NotThereYetError,
    ProtocolError,
    RequestReusedError,
    SessionStateError,
)
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.rpc.frames import MAX_CHUNK_BYTES, MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from edge_mil.rpc.pagination import page_of
from edge_mil.rpc.pixel_size import resolve_mpp
from edge_mil.rpc.results import timestamp
from edge_mil.testing.service_base import FakeServicer, answered, streamed
from edge_mil.testing.service_stream import FakeStream
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc
from edge_mil.version import __version__

PROTOCOL_VERSION = "edge_mil.v1"


class FakeModels(FakeServicer, rpc.ModelServiceServicer):
    """One bundle, which is always ready."""

    @answered
    def GetServerInfo(self, request: Any, context: Any) -> pb.GetServerInfoResponse:  # noqa: N802
        return pb.GetServerInfoResponse(
            server_version=__version__,
            instance_id=self.service.instance_id,
            protocol_versions=[PROTOCOL_VERSION],
            protocol_revision=1,
            features=["raw", "independent"],
            max_frame_bytes=MAX_FRAME_BYTES,
            max_frame_pixels=MAX_FRAME_PIXELS,
            max_chunk_bytes=MAX_CHUNK_BYTES,
            preferred_credits=self.service.credits,
        )

    @answered
    def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        return pb.ListModelsResponse(models=[self.service.model])

    @streamed
    def LoadModel(self, request: Any, context: Any) -> Iterator[pb.LoadModelResponse]:  # noqa: N802
        self.check_bundle(request.bundle_id, request.bundle_digest)
        yield pb.LoadModelResponse(state="READY", progress=1.0, model=self.service.model)

    @answered
    def UnloadModel(self, request: Any, context: Any) -> pb.UnloadModelResponse:  # noqa: N802
        self.check_bundle(request.bundle_id)
        return pb.UnloadModelResponse()  # there is no model whose memory could be given back


class FakeSessions(FakeServicer, rpc.SessionServiceServicer):
    """Sessions in memory; they outlive `FakeService.stop`, as real ones outlive a restart."""

    @answered
    def OpenSession(self, request: Any, context: Any) -> pb.OpenSessionResponse:  # noqa: N802
        if request.protocol_version not in ("", PROTOCOL_VERSION):
            raise NotThereYetError(
                f"This service speaks {PROTOCOL_VERSION}.", reason="PROTOCOL_VERSION"
            )
        name = request.optics.calibration_id
        if name and name not in self.service.calibrations:
            raise CalibrationError(
                f"There is no calibration {name!r}.", reason="CALIBRATION_NOT_FOUND"
            )
        measured = self.service.calibrations[name].mpp or None if name else None
        mpp, source = resolve_mpp(request.optics, measured)
        self.check_bundle(request.bundle_id, request.bundle_digest)
        for session in self.service.sessions.values():
            if request.request_id and session.request.request_id == request.request_id:
                if session.request != request:
                    raise RequestReusedError(f"Request id {request.request_id} was used before.")
                return pb.OpenSessionResponse(session=session.message())
        session = self.service.new_session(request)
        session.mpp, session.mpp_source = mpp, source
        return pb.OpenSessionResponse(session=session.message())

    @answered
    def GetSession(self, request: Any, context: Any) -> pb.GetSessionResponse:  # noqa: N802
        return pb.GetSessionResponse(session=self.session(request.session_id).message())

    @answered
    def ListSessions(self, request: Any, context: Any) -> pb.ListSessionsResponse:  # noqa: N802
        ids = list(reversed(self.service.sessions))
        page, token = page_of(ids, request.page_size, request.page_token)
        sessions = [self.service.sessions[session_id].message() for session_id in page]
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=token)

    @streamed
    def StreamFields(  # noqa: N802
        self, request: Iterator[pb.StreamFieldsRequest], context: Any
    ) -> Iterator[pb.StreamFieldsResponse]:
        first = next(request, None)
        if first is None:
            return
        if not first.HasField("start"):
            raise ProtocolError("The first message of a stream must be start.", field="start")
        session = self.session(first.start.session_id)
        stream = FakeStream(self.service, session)
        with self.service.changed:
            session.attach(stream.messages, takeover=first.start.takeover)
        try:
            yield from stream.responses(request)
        finally:
            with self.service.changed:
                session.detach(stream.messages)
                self.service.changed.notify_all()

    @answered
    def RemoveField(self, request: Any, context: Any) -> pb.RemoveFieldResponse:  # noqa: N802
        session = self.session(request.session_id)
        session.remove(request.sequence)
        return pb.RemoveFieldResponse(score=session.score_message())

    @answered
    def ReleaseSession(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.ReleaseSessionResponse:
        self.session(request.session_id)
        raise SessionStateError(
            "No check holds this session, so there is nothing to release.", reason="HOLD_MISMATCH"
        )

    @answered
    def CloseSession(self, request: Any, context: Any) -> pb.CloseSessionResponse:  # noqa: N802
        session = self.session(request.session_id)
        report = session.close(request.expected_fields)
        return pb.CloseSessionResponse(session=session.message(), report_json=report)


class FakeCalibrations(FakeServicer, rpc.CalibrationServiceServicer):
    """Calibrations that measure nothing, and are kept by name."""

    @answered
    def Calibrate(  # noqa: N802
        self, request: Iterator[pb.CalibrateRequest], context: Any
    ) -> pb.CalibrateResponse:
        first = next(request, None)
        if first is None or not first.HasField("start"):
            raise ProtocolError("The first message of Calibrate must be start.", field="start")
        frames, assembly = 0, None
        for message in request:
            if message.HasField("header"):
                assembly = FrameAssembly(message.header)
            elif assembly is not None:
                assembly.add(message.chunk)
                frames += assembly.complete
        start = first.start
        calibration = self.service.calibrations.setdefault(
            start.optics.calibration_id, pb.Calibration(calibration_id=start.optics.calibration_id)
        )
        kind = pb.CalibrationKind.Name(start.kind).removeprefix("CALIBRATION_KIND_")
        part = kind.lower().replace("_", "-").replace("dark-field", "dark-frame")
        calibration.kind = start.kind
        calibration.optics.MergeFrom(start.optics)
        calibration.mpp = start.optics.mpp or calibration.mpp
        calibration.measured[part].CopyFrom(timestamp(time.time()))
        calibration.figures["frames"] = frames
        return pb.CalibrateResponse(calibration=calibration)

    @answered
    def ListCalibrations(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.ListCalibrationsResponse:
        names = sorted(self.service.calibrations)
        page, token = page_of(names, request.page_size, request.page_token)
        found = [self.service.calibrations[name] for name in page]
        return pb.ListCalibrationsResponse(calibrations=found, next_page_token=token)
