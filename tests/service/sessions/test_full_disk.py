"""The disk is full while fields come: nothing acknowledged is lost, and it goes on later."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from running_service import RunningService, WireStream, open_session, tissue_frames

import edge_mil
from edge_mil.rpc.status import REASON_KEY
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc


@pytest.fixture
def own_service(bundle: Path, tmp_path: Path) -> Iterator[RunningService]:
    running = RunningService(bundle, tmp_path)
    yield running
    fill_disk(running, full=False)
    assert running.stop() == 0


def fill_disk(service: RunningService, *, full: bool) -> None:
    """Let no file of the service grow: to SQLite that is a disk that takes no more."""
    _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    limit = 1000 if full else hard
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def test_what_was_acknowledged_is_there_and_the_rest_is_refused(
    own_service: RunningService,
) -> None:
    frames = list(tissue_frames(4))
    with own_service.channel as channel:
        session = open_session(channel).session_id
        stream = WireStream(channel, session)
        for sequence in (1, 2):
            stream.send(frames[sequence - 1], sequence)
            assert stream.result().durable
        fill_disk(own_service, full=True)
        stream.send(frames[2], 3)
        with pytest.raises(grpc.RpcError) as caught:
            stream.result()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata())[REASON_KEY] == "STORE_FAILED"
        fill_disk(own_service, full=False)
        again = WireStream(channel, session)
        assert again.ready.ready.session.durable_sequence == 2
        again.send(frames[2], 3)
        answer = again.result()
        again.end()
        whole = open_session(channel).session_id
        undisturbed = WireStream(channel, whole)
        for sequence in (1, 2, 3):
            undisturbed.send(frames[sequence - 1], sequence)
            expected = undisturbed.result()
        undisturbed.end()
        assert list(answer.score.classes) == list(expected.score.classes)
        closed = rpc.SessionServiceStub(channel).CloseSession(
            pb.CloseSessionRequest(session_id=session, expected_fields=3)
        )
        assert closed.report_json


def test_a_client_waits_until_there_is_room(own_service: RunningService) -> None:
    frames = list(tissue_frames(8))

    def send() -> Iterator[Frame]:
        for number, frame in enumerate(frames):
            if number == 4:
                fill_disk(own_service, full=True)
                threading.Timer(1.0, fill_disk, (own_service,), {"full": False}).start()
            yield frame

    with edge_mil.Client(own_service.address) as client:
        session = client.open_session(mpp=0.5)
        summary = session.send_frames(send())
        assert summary.answered == 8
        assert summary.reconnects >= 1
        whole = client.open_session(mpp=0.5)
        whole.send_frames(frames)
        assert session.close(expected_fields=8).score == whole.score().score
