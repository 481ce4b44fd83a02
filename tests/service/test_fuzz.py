"""Any messages in any order: the stream ends with a status of the table, and the session lives."""

from __future__ import annotations

import time

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_service import WireStream, open_session, tissue_frames

from edge_mil.rpc.frames import encode_header
from edge_mil.rpc.status import REASON_KEY
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

FRAME = next(tissue_frames(1))
DATA = FRAME.pixels.tobytes()
FORESEEN = {"", "PROTOCOL_VIOLATION", "NO_CREDIT"}
numbers = st.one_of(st.integers(0, 6), st.just(2**64 - 1))


def header(sequence: int, **changes: object) -> pb.FieldHeader:
    made = encode_header(FRAME, sequence)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


whole = numbers.map(lambda n: [{"header": header(n)}, {"chunk": pb.FieldChunk(data=DATA)}])
halves = numbers.map(
    lambda n: [
        {"header": header(n)},
        {"chunk": pb.FieldChunk(data=DATA[:1000])},
        {"chunk": pb.FieldChunk(offset=1000, data=DATA[1000:])},
    ]
)
loose = st.one_of(
    numbers.map(lambda n: [{"header": header(n)}]),
    st.tuples(numbers, st.integers(0, 2**32 - 1), st.integers(0, 9)).map(
        lambda t: [{"header": header(t[0], width=t[1], encoding=t[2])}]
    ),
    st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=9)).map(
        lambda t: [{"chunk": pb.FieldChunk(offset=t[0], data=t[1])}]
    ),
    numbers.map(lambda n: [{"abort": pb.FieldAbort(sequence=n)}]),
    st.just([{"start": pb.StreamStart()}]),
    st.just([{}]),
)
scripts = st.lists(st.one_of(whole, halves, loose), max_size=6)


def ended(stream: WireStream) -> tuple[str, list[pb.FieldResult]]:
    """End a stream; return the reason of its status, "" for OK, and the answers after an OK."""
    try:
        return "", [response.result for response in stream.end()]
    except grpc.RpcError as error:
        return dict(error.trailing_metadata())[REASON_KEY], []


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=scripts, cancel=st.booleans())
def test_nothing_that_a_client_sends_is_unforeseen(
    channel: grpc.Channel, script: list[list[dict[str, object]]], cancel: bool
) -> None:
    session = open_session(channel).session_id
    stream = WireStream(channel, session)
    for messages in script:
        for body in messages:
            stream.put(**body)
    if cancel:
        stream.cancel()
    else:
        reason, answers = ended(stream)
        assert reason in FORESEEN
        for answer in answers:
            free = answer.HasField("error") or answer.verdict == pb.VERDICT_DROPPED
            assert answer.durable != free
    again = WireStream(channel, session, takeover=True)
    again.send(FRAME, 100)
    assert not again.result().HasField("error")
    again.end()


@pytest.mark.slow
def test_a_watcher_of_a_quiet_session_hears_that_the_service_is_there(
    channel: grpc.Channel,
) -> None:
    session = open_session(channel).session_id
    call = rpc.ViewServiceStub(channel).WatchScore(pb.WatchScoreRequest(session_id=session))
    assert not next(call).heartbeat
    began = time.monotonic()
    assert next(call).heartbeat
    assert time.monotonic() - began < 15
    call.cancel()
