"""SessionService: open, find, stream to, change and close sessions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from edge_mil.calibration import CalibrationFolder
from edge_mil.errors import (
    ProtocolError,
    SequenceError,
    SessionClosedError,
    SessionNotFoundError,
    SessionStateError,
    StoreError,
)
from edge_mil.service.handlers import streaming, unary
from edge_mil.service.messages import session_message, summary_message
from edge_mil.service.models.registry import BundleRegistry
from edge_mil.service.pagination import page_of
from edge_mil.service.sessions.field_stream import FieldStream
from edge_mil.service.sessions.field_worker import FieldWorker
from edge_mil.service.sessions.live_session import LiveSession, SessionRegistry, score_of
from edge_mil.service.sessions.opening import settings_of
from edge_mil.service.sessions.session_report import session_report
from edge_mil.session import SessionSummary
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc


class SessionServicer(rpc.SessionServiceServicer):
    """The write side."""

    def __init__(
        self,
        models: BundleRegistry,
        hosts: SessionRegistry,
        folder: FieldWorker,
        calibrations: CalibrationFolder,
    ) -> None:
        self._models, self._hosts, self._folder = models, hosts, folder
        self._calibrations = calibrations

    @unary
    async def OpenSession(  # noqa: N802 # the wire names it
        self, request: pb.OpenSessionRequest, _: Any
    ) -> pb.OpenSessionResponse:
        """Open a session, or return the one that this request opened before."""
        loop = asyncio.get_running_loop()
        settings = await loop.run_in_executor(
            None, settings_of, request, self._calibrations, time.time()
        )
        bundle = self._models.pick(request.bundle_id, request.bundle_digest)
        bundle.ready()
        hosted = await self._hosts.create(bundle, settings)
        return pb.OpenSessionResponse(session=session_message(hosted))

    @unary
    async def GetSession(  # noqa: N802
        self, request: pb.GetSessionRequest, _: Any
    ) -> pb.GetSessionResponse:
        """Return where a session stands."""
        async with self._hosts.use(request.session_id) as hosted:
            return pb.GetSessionResponse(session=session_message(hosted))

    @unary
    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, _: Any
    ) -> pb.ListSessionsResponse:
        """Return the sessions under the state directory, newest first."""
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(None, self._hosts.folder.ids)
        page, token = page_of(sorted(ids, reverse=True), request.page_size, request.page_token)
        response = pb.ListSessionsResponse(next_page_token=token)
        for session_id in page:
            hosted = self._hosts.live(session_id)
            if hosted is not None:
                response.sessions.append(session_message(hosted))
                continue
            # A damaged session must not hide the others.
            with contextlib.suppress(StoreError, SessionNotFoundError):
                summary: SessionSummary = await loop.run_in_executor(
                    None, self._hosts.folder.summary, session_id
                )
                response.sessions.append(summary_message(summary))
        return response

    @streaming
    async def StreamFields(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamFieldsRequest], _: Any
    ) -> AsyncIterator[pb.StreamFieldsResponse]:
        """Take fields and answer each one."""
        incoming = aiter(requests)
        first = await anext(incoming, None)
        if first is None:
            return
        if first.WhichOneof("body") != "start":
            raise ProtocolError("The first message of a stream must be start.", field="start")
        async with self._hosts.use(first.start.session_id) as hosted:
            writer = hosted.attach(takeover=first.start.takeover)
            try:
                ready = pb.StreamReady(session=session_message(hosted))
                stream = FieldStream(hosted, writer, self._folder)
                async for response in stream.responses(incoming, ready):
                    yield response
            finally:
                hosted.detach(writer)

    @unary
    async def RemoveField(  # noqa: N802
        self, request: pb.RemoveFieldRequest, _: Any
    ) -> pb.RemoveFieldResponse:
        """Take a field out of the score."""
        async with self._hosts.use(request.session_id) as hosted:
            session, sequence = hosted.session, request.sequence
            if session.stored(sequence) is None:
                raise SequenceError(
                    f"The session has no field {sequence} to remove; list its fields first.",
                    reason="FIELD_NOT_FOUND",
                    field="sequence",
                )
            standing = await hosted.run(lambda: session.remove(sequence, request.reason))
            hosted.publish(score_of(standing))
            return pb.RemoveFieldResponse(score=hosted.score)

    @unary
    async def CloseSession(  # noqa: N802
        self, request: pb.CloseSessionRequest, _: Any
    ) -> pb.CloseSessionResponse:
        """End a session and return its report; again it is the same report."""
        async with self._hosts.use(request.session_id) as hosted:
            expected = request.expected_fields
            report = await hosted.run(lambda: _close(hosted, expected))
            if hosted.writer is not None:
                hosted.writer.revoke(
                    SessionClosedError(
                        f"Session {request.session_id} was closed; this stream ends."
                    )
                )
            hosted.publish(score_of(hosted.session.standing()))
            hosted.changed()
            return pb.CloseSessionResponse(session=session_message(hosted), report_json=report)


def _close(hosted: LiveSession, expected: int) -> bytes:
    """Close on the worker: after every field that came before."""
    session = hosted.session
    stored = sum(session.standing().verdicts.values())
    if expected and expected != stored:
        raise SessionStateError(
            f"The client expects {expected} fields and the session holds {stored}; send the "
            "missing ones again, or close it without expected_fields.",
            reason="FIELDS_MISSING",
            expected=expected,
            stored=stored,
        )
    session.close()
    return session_report(session)
