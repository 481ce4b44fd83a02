"""Sessions with an idle timeout: they expire, keep what they hold, and a stream keeps them open."""

from __future__ import annotations

import json
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from running_service import RunningService, WireStream, open_session, tissue_frames

from edge_mil.rpc.status import REASON_KEY
from edge_mil.service.sessions.expiry import Expiry
from edge_mil.session import SessionFolder
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

SECOND = Duration(seconds=1)
PATIENCE_S = 60.0
FRAMES = list(tissue_frames(2))


def state_of(channel: grpc.Channel, session_id: str) -> int:
    request = pb.GetSessionRequest(session_id=session_id)
    return int(rpc.SessionServiceStub(channel).GetSession(request, timeout=30).session.state)


def expired(channel: grpc.Channel, session_id: str) -> bool:
    """Wait until a session has expired; asking for it does not keep it open."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        if state_of(channel, session_id) == pb.SESSION_STATE_EXPIRED:
            return True
        time.sleep(0.2)
    return False


def test_a_session_without_a_stream_expires_and_keeps_what_it_holds(
    bundle: Path, tmp_path: Path
) -> None:
    service = RunningService(bundle, tmp_path)
    with service.channel as channel:
        session = open_session(channel, idle_timeout=SECOND).session_id
        stream = WireStream(channel, session)
        stream.send(FRAMES[0], 1)
        answer = stream.result()
        stream.end()
        watching = rpc.ViewServiceStub(channel).WatchScore(pb.WatchScoreRequest(session_id=session))
        assert expired(channel, session)
        assert list(watching)[-1].state == pb.SESSION_STATE_EXPIRED
        with pytest.raises(grpc.RpcError, match="no field came for 1 s") as caught:
            WireStream(channel, session)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert dict(caught.value.trailing_metadata())[REASON_KEY] == "SESSION_EXPIRED"
    assert service.stop() == 0
    service.start()
    with service.channel as channel:
        assert state_of(channel, session) == pb.SESSION_STATE_EXPIRED
        stub = rpc.SessionServiceStub(channel)
        closed = stub.CloseSession(pb.CloseSessionRequest(session_id=session))
        assert closed.session.state == pb.SESSION_STATE_EXPIRED
        report = json.loads(closed.report_json)
        assert [record["sequence"] for record in report["records"]] == [1]
        assert closed.session.score.classes == answer.score.classes
        (listed,) = stub.ListSessions(pb.ListSessionsRequest()).sessions
        assert listed.state == pb.SESSION_STATE_EXPIRED
    assert service.stop() == 0
    assert SessionFolder(tmp_path / "state").summary(session).expired


def test_a_stream_keeps_its_session_open_however_long_it_is_silent(
    channel: grpc.Channel,
) -> None:
    session = open_session(channel, idle_timeout=SECOND).session_id
    other = open_session(channel, idle_timeout=SECOND).session_id
    stream = WireStream(channel, session)
    stream.send(FRAMES[0], 1)
    stream.result()
    assert expired(channel, other)
    time.sleep(1.5)
    stream.send(FRAMES[1], 2)
    assert not stream.result().HasField("error")
    stream.end()


def test_a_session_is_due_after_its_timeout_since_it_was_used_last() -> None:
    now = 0.0

    async def expire(_: str) -> None:
        """Do nothing."""

    expiry = Expiry(expire, lambda: now)
    expiry.begin("never", 0.0)
    expiry.begin("a", 10.0)
    expiry.begin("b", 20.0)
    now = 9.0
    expiry.begin("a", 10.0)  # opened again to be read: that is no use
    assert expiry.due() == []
    now = 10.0
    assert expiry.due() == ["a"]
    expiry.note("a", 10.0)
    assert expiry.due() == []
    now = 20.0
    assert expiry.due() == ["a", "b"]
    expiry.forget("a")
    assert expiry.due() == ["b"]
