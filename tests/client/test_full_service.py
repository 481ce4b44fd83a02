"""A service that is full, or ends a stream that was silent: the client comes back by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from running_service import RunningService, open_session, tissue_frames

from edge_mil.client import Client
from edge_mil.client.channel import Channel, Timeouts
from edge_mil.rpc.results import encode_result
from edge_mil.rpc.status import REASON_KEY, RETRY_KEY
from edge_mil.service.limits import MAX_WATCHERS
from edge_mil.types import FieldResult, Verdict
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

FRAMES = list(tissue_frames(2))


class IdleService(rpc.SessionServiceServicer):
    """Ends its first stream after one answer, because nothing more was sent on it."""

    def __init__(self) -> None:
        self.streams, self.idle = 0, threading.Event()

    def GetSession(  # noqa: N802 # the wire names it
        self, request: pb.GetSessionRequest, _: Any
    ) -> pb.GetSessionResponse:
        session = pb.Session(session_id=request.session_id, mpp=0.5, mpp_source="declared")
        return pb.GetSessionResponse(session=session)

    def StreamFields(  # noqa: N802 # the wire names it
        self, requests: Iterator[pb.StreamFieldsRequest], context: Any
    ) -> Iterator[pb.StreamFieldsResponse]:
        self.streams += 1
        session = pb.Session(session_id="s", durable_sequence=self.streams - 1)
        yield pb.StreamFieldsResponse(header_limit=3, ready=pb.StreamReady(session=session))
        for request in requests:
            if request.WhichOneof("body") == "header":
                result = FieldResult(request.header.sequence, Verdict.BLANK)
                yield pb.StreamFieldsResponse(header_limit=4, result=encode_result(result))
                if self.streams == 1:
                    self.idle.set()
                    context.set_trailing_metadata(((REASON_KEY, "STREAM_IDLE"), (RETRY_KEY, "100")))
                    context.abort(grpc.StatusCode.ABORTED, "No field came for long.")


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[tuple[IdleService, str]]:
    service, server = IdleService(), grpc.server(futures.ThreadPoolExecutor(4))
    rpc.add_SessionServiceServicer_to_server(service, server)
    address = f"unix:{tmp_path / 's'}"
    server.add_insecure_port(address)
    server.start()
    yield service, address
    server.stop(0).wait()


def test_a_stream_that_was_ended_for_silence_is_opened_again_when_there_is_a_field(
    idle: tuple[IdleService, str],
) -> None:
    service, address = idle
    told: list[str] = []
    with Client(address) as client:
        stream = client.resume("s").stream(on_disconnected=told.append)
        stream.send(FRAMES[0])
        stream.drain()
        assert service.idle.wait(10)
        assert service.streams == 1
        stream.send(FRAMES[1])
        summary = stream.finish()
    assert service.streams == 2
    assert (summary.answered, summary.reconnects, told) == (2, 0, [])


def test_a_call_that_meets_a_full_service_is_made_again(service: RunningService) -> None:
    with service.channel as channel:
        request = pb.WatchScoreRequest(session_id=open_session(channel).session_id)
        stub = rpc.ViewServiceStub(channel)
        watchers = [stub.WatchScore(request) for _ in range(MAX_WATCHERS)]
        for watcher in watchers:
            next(watcher)
        leaving = threading.Timer(0.5, lambda: [watcher.cancel() for watcher in watchers])
        leaving.start()
        refused = Channel(service.address, Timeouts(connect_s=20.0))

        def first(message: pb.WatchScoreRequest, timeout: float) -> pb.WatchScoreResponse:
            response: pb.WatchScoreResponse = next(
                refused.views.WatchScore(message, timeout=timeout)
            )
            return response

        assert refused.call(first, request).state == pb.SESSION_STATE_OPEN
        refused.close()
        leaving.join()
