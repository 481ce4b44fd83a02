"""What every call passes first: bytes that are no message, and more calls than are taken on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from running_service import RunningService, open_session

from edge_mil.errors import ServiceBusyError
from edge_mil.rpc.status import REASON_KEY, RETRY_KEY
from edge_mil.service.admission import CALLS, WATCHERS, Admission
from edge_mil.service.limits import MAX_WATCHERS
from edge_mil.service.unreadable import LOG_EVERY_S, UnreadableLog
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

GARBAGE = b"\xff\xff\xff\xff garbage"
METHODS = [
    (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
OTHERS = [
    ("/grpc.health.v1.Health/Check", False, False),
    ("/grpc.health.v1.Health/Watch", False, True),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True, True),
]
assert health_pb2_grpc.HealthStub
assert reflection_pb2_grpc.ServerReflectionStub


def call_with(channel: grpc.Channel, method: str, takes: bool, gives: bool, data: bytes) -> object:
    """Call a method with bytes as they are; return what it answers with."""
    kind = ("stream" if takes else "unary") + ("_stream" if gives else "_unary")
    call = getattr(channel, kind)(method, request_serializer=None, response_deserializer=None)
    answer = call(iter([data]) if takes else data, timeout=30)
    return list(answer) if gives else answer


@pytest.mark.parametrize(("method", "takes", "gives"), [*METHODS, *OTHERS])
def test_bytes_that_are_no_message_are_an_invalid_argument(
    channel: grpc.Channel, method: str, takes: bool, gives: bool
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call_with(channel, method, takes, gives, GARBAGE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())[REASON_KEY] == "MESSAGE_UNREADABLE"


def test_what_cannot_be_read_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, *[1.0] * 500, LOG_EVERY_S])
    log = UnreadableLog(lambda: next(times))
    with caplog.at_level(logging.WARNING):
        for _ in range(502):
            log.note("/edge_mil.v1.ViewService/GetScore")
    assert [record.args[0] for record in caplog.records if record.args] == [1, 501]


def test_the_log_of_a_service_holds_no_traceback_for_garbage(service: RunningService) -> None:
    with service.channel as channel:
        for _ in range(20):
            for method, takes, gives in METHODS:
                with pytest.raises(grpc.RpcError):
                    call_with(channel, method, takes, gives, GARBAGE)
    assert not [line for line in service.all_lines() if "Traceback" in line]
    assert len([line for line in service.all_lines() if "could not be read" in line]) <= 1


def test_calls_beyond_the_limit_of_their_kind_are_refused_and_the_others_go_on() -> None:
    admission = Admission({WATCHERS: 1, CALLS: 1})
    watch, score = "/edge_mil.v1.ViewService/WatchScore", "/edge_mil.v1.ViewService/GetScore"
    with admission.admitted(watch, streams=True):
        with (
            pytest.raises(ServiceBusyError, match="1 watchers"),
            admission.admitted(watch, streams=True),
        ):
            pass
        with admission.admitted(score, streams=False):
            pass
    with admission.admitted(watch, streams=True):
        pass


@pytest.fixture
def watchers(channel: grpc.Channel) -> Iterator[list[grpc.Call]]:
    """As many watchers of one session as the service takes on, none of which reads."""
    session = open_session(channel).session_id
    stub = rpc.ViewServiceStub(channel)
    calls = [stub.WatchScore(pb.WatchScoreRequest(session_id=session)) for _ in range(MAX_WATCHERS)]
    for call in calls:
        next(call)
    yield calls
    for call in calls:
        call.cancel()


@pytest.mark.usefixtures("watchers")
def test_a_watcher_too_many_is_told_so_and_when_to_come_back(channel: grpc.Channel) -> None:
    session = open_session(channel)
    call = rpc.ViewServiceStub(channel).WatchScore(
        pb.WatchScoreRequest(session_id=session.session_id)
    )
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = dict(caught.value.trailing_metadata())
    assert (told[REASON_KEY], told[RETRY_KEY]) == ("SERVICE_BUSY", "1000")
    assert "64 watchers" in (caught.value.details() or "")
