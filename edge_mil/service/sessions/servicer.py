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
    UsageError,
)
from edge_mil.rpc.pagination import page_of
from edge_mil.service.handlers import streaming, unary
from edge_mil.service.models.registry import BundleRegistry
from edge_mil.service.sessions.field_stream import FieldStream
from edge_mil.service.sessions.field_worker import FieldWorker
from edge_mil.service.sessions.live_session import LiveSession
from edge_mil.service.sessions.messages import score_message, summary_message
from edge_mil.service.sessions.opening import settings_of
from edge_mil.service.sessions.registry import SessionRegistry
from edge_mil.service.sessions.session_report import session_report
from edge_mil.session import SessionSummary
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

RELEASES = {
    pb.HOLD_RELEASE_SAME_SLIDE: "same-slide",
    pb.HOLD_RELEASE_INSIST: "insist",
}
"""How a held session is released -> the session's word for it."""


class SessionServicer(rpc.SessionServiceServicer):
    """The calls that change sessions, and those that find them."""

    def __init__(
        self,
        bundles: BundleRegistry,
        sessions: SessionRegistry,
        worker: FieldWorker,
        calibrations: CalibrationFolder,
    ) -> None:
        self._bundles, self._sessions, self._worker = bundles, sessions, worker
        self._calibrations = calibrations

    @unary
    async def OpenSession(  # noqa: N802 # the wire names it
        self, request: pb.OpenSessionRequest, _: Any
    ) -> pb.OpenSessionResponse:
        loop = asyncio.get_running_loop()
        settings = await loop.run_in_executor(
            None, settings_of, request, self._calibrations, time.time()
        )
        bundle = self._bundles.pick(request.bundle_id, request.bundle_digest)
        bundle.ready()
        live = await self._sessions.create(bundle, settings)
        return pb.OpenSessionResponse(session=live.message())

    @unary
    async def GetSession(  # noqa: N802
        self, request: pb.GetSessionRequest, _: Any
    ) -> pb.GetSessionResponse:
        async with self._sessions.use(request.session_id) as live:
            return pb.GetSessionResponse(session=live.message())

    @unary
    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, _: Any
    ) -> pb.ListSessionsResponse:
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(None, self._sessions.folder.ids)
        page, token = page_of(sorted(ids, reverse=True), request.page_size, request.page_token)
        response = pb.ListSessionsResponse(next_page_token=token)
        for session_id in page:
            live = self._sessions.live(session_id)
            if live is not None:
                response.sessions.append(live.message())
                continue
            # A damaged session must not hide the others.
            with contextlib.suppress(StoreError, SessionNotFoundError):
                summary: SessionSummary = await loop.run_in_executor(
                    None, self._sessions.folder.summary, session_id
                )
                response.sessions.append(summary_message(summary))
        return response

    @streaming
    async def StreamFields(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamFieldsRequest], _: Any
    ) -> AsyncIterator[pb.StreamFieldsResponse]:
        incoming = aiter(requests)
        first = await anext(incoming, None)
        if first is None:
            return
        if first.WhichOneof("body") != "start":
            raise ProtocolError("The first message of a stream must be start.", field="start")
        async with self._sessions.use(first.start.session_id) as live:
            lease = live.attach(takeover=first.start.takeover)
            try:
                ready = pb.StreamReady(session=live.message())
                stream = FieldStream(live, lease, self._worker)
                async for response in stream.responses(incoming, ready):
                    yield response
            finally:
                live.detach(lease)

    @unary
    async def RemoveField(  # noqa: N802
        self, request: pb.RemoveFieldRequest, _: Any
    ) -> pb.RemoveFieldResponse:
        async with self._sessions.use(request.session_id) as live:
            session, sequence = live.session, request.sequence
            if not session.has_field(sequence):
                raise SequenceError(
                    f"The session has no field {sequence} to remove; list its fields first.",
                    reason="FIELD_NOT_FOUND",
                    field="sequence",
                )
            status = await live.run(lambda: session.remove(sequence, request.reason))
            live.publish(score_message(status))
            return pb.RemoveFieldResponse(score=live.score)

    @unary
    async def ReleaseSession(  # noqa: N802
        self, request: pb.ReleaseSessionRequest, _: Any
    ) -> pb.ReleaseSessionResponse:
        how = RELEASES.get(request.how, "")
        if not how:
            raise UsageError(
                "The release does not say how: send SAME_SLIDE where the slide was cleaned or put "
                "back, or INSIST to count in spite of the contradiction.",
                field="how",
            )
        async with self._sessions.use(request.session_id) as live:
            session = live.session
            status = await live.run(lambda: session.release_hold(how, request.reason))
            live.publish(score_message(status))
            return pb.ReleaseSessionResponse(session=live.message())

    @unary
    async def CloseSession(  # noqa: N802
        self, request: pb.CloseSessionRequest, _: Any
    ) -> pb.CloseSessionResponse:
        async with self._sessions.use(request.session_id) as live:
            expected = request.expected_fields
            report = await live.run(lambda: _close(live, expected))
            if live.lease is not None:
                live.lease.revoke(
                    SessionClosedError(
                        f"Session {request.session_id} was closed; this stream ends."
                    )
                )
            live.publish(score_message(live.session.status()))
            live.wake_watchers()
            return pb.CloseSessionResponse(session=live.message(), report_json=report)


def _close(live: LiveSession, expected: int) -> bytes:
    """Close the session, and return its report; runs on its worker, after the fields before."""
    session = live.session
    stored = sum(session.status().verdicts.values())
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
