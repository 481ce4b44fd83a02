"""StreamFields on a real socket: order, credits, replays, violations, writers."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib

import cv2
import grpc
import numpy as np
import pytest
from running_service import ROOT, RunningService, WireStream, open_session, tissue_frames

from edge_mil.rpc.frames import encode_header
from edge_mil.rpc.status import REASON_KEY
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

CREDITS = 3


@pytest.fixture
def session(channel: grpc.Channel) -> str:
    return open_session(channel).session_id


def reason(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata()).get(REASON_KEY, "")


def without_timings(result: pb.FieldResult) -> bytes:
    copy = pb.FieldResult.FromString(result.SerializeToString())
    copy.ClearField("timings")
    copy.ClearField("replayed")
    return copy.SerializeToString(deterministic=True)


def state(channel: grpc.Channel, session: str) -> int:
    found = rpc.SessionServiceStub(channel).GetSession(pb.GetSessionRequest(session_id=session))
    return found.session.state


def test_answers_come_in_order_one_for_each_number(channel: grpc.Channel, session: str) -> None:
    stream, answers = WireStream(channel, session), []
    limit = stream.ready.header_limit
    assert limit == CREDITS
    for sequence, frame in enumerate(tissue_frames(8), 1):
        if sequence > limit:
            response = stream.next()
            answers.append(response.result)
            assert response.header_limit == limit + 1
            limit = response.header_limit
        stream.send(frame, sequence)
    answers += [response.result for response in stream.end()]
    assert [answer.sequence for answer in answers] == list(range(1, 9))
    assert all(answer.durable and not answer.replayed for answer in answers)


@pytest.mark.parametrize("chunk_bytes", [997, 4096, 65536, 1 << 20])
def test_the_size_of_chunks_changes_nothing(channel: grpc.Channel, chunk_bytes: int) -> None:
    frame = next(tissue_frames(1))
    answers = []
    for size in (frame.pixels.size, chunk_bytes):
        stream = WireStream(channel, open_session(channel).session_id)
        stream.send(frame, 1, size)
        answers.append(without_timings(stream.result()))
        stream.end()
    assert answers[0] == answers[1]


def test_a_field_beyond_the_credit_ends_the_stream(channel: grpc.Channel, session: str) -> None:
    stream = WireStream(channel, session)
    frame = next(tissue_frames(1))
    # The fields are never finished, so no credit can come back.
    for sequence in range(1, CREDITS + 1):
        stream.put(header=encode_header(frame, sequence))
        stream.put(abort=pb.FieldAbort(sequence=sequence))
    for _ in range(CREDITS):
        assert stream.next().result.verdict == pb.VERDICT_DROPPED
    limit = 2 * CREDITS
    data = np.ascontiguousarray(frame.pixels).tobytes()
    burst = WireStream(channel, session, takeover=True)
    for sequence in range(1, limit):
        burst.send_bytes(encode_header(frame, sequence), data)
    with pytest.raises(grpc.RpcError) as caught:
        list(burst.call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == "NO_CREDIT"


def test_a_number_sent_again_gets_its_stored_answer(channel: grpc.Channel, session: str) -> None:
    frame = next(tissue_frames(1))
    stream = WireStream(channel, session)
    stream.send(frame, 1)
    first = stream.result()
    replays = []
    for _ in range(2):
        stream.send(frame, 1)
        replays.append(stream.result())
    stream.end()
    assert all(replay.replayed for replay in replays)
    assert without_timings(replays[0]) == without_timings(first)
    assert replays[0].SerializeToString() == replays[1].SerializeToString()
    # Nothing was folded again.
    score = rpc.ViewServiceStub(channel).GetScore(pb.GetScoreRequest(session_id=session)).score
    assert score.revision == first.score.revision


def test_a_number_sent_twice_at_once_is_folded_once(channel: grpc.Channel, session: str) -> None:
    frame = next(tissue_frames(1))
    stream = WireStream(channel, session)
    # The second copy comes while the first is being folded and written.
    for _ in range(CREDITS):
        stream.send(frame, 1)
    answers = [response.result for response in stream.end()]
    assert [answer.replayed for answer in answers] == [False, True, True]
    assert {without_timings(answer) for answer in answers} == {without_timings(answers[0])}


def test_a_number_with_other_pixels_or_another_position_is_a_conflict(
    channel: grpc.Channel, session: str
) -> None:
    frame = next(tissue_frames(1))
    moved = Frame(frame.pixels, x_um=frame.x_um + 96, y_um=frame.y_um)
    stream = WireStream(channel, session)
    stream.send(frame, 1)
    stream.result()
    for other in (Frame(255 - frame.pixels, frame.x_um, frame.y_um), moved):
        stream.send(other, 1)
        answer = stream.result()
        assert answer.error.reason == "SEQUENCE_CONFLICT"
        assert not answer.durable
    # Its own pixels at that position: the same ones would contradict the stage.
    stream.send(list(tissue_frames(2))[1], 2)
    assert stream.result().verdict == pb.VERDICT_ACCEPTED
    stream.end()


def header(**changes: object) -> pb.FieldHeader:
    made = encode_header(next(tissue_frames(1)), 1)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


VIOLATIONS = {
    "chunk before header": [{"chunk": pb.FieldChunk(data=b"x")}],
    "second start": [{"start": pb.StreamStart(session_id="x")}],
    "empty message": [{}],
    "two headers": [{"header": header()}, {"header": header(sequence=2)}],
    "sequence 0": [{"header": header(sequence=0)}],
    "no bytes": [{"header": header(total_bytes=0)}],
    "total that is not the picture": [{"header": header(total_bytes=1000)}],
    "stride below the width": [{"header": header(row_stride=10, total_bytes=1920)}],
    "gap": [{"header": header()}, {"chunk": pb.FieldChunk(offset=5, data=b"x")}],
    "beyond the end": [
        {"header": header(width=1, height=1, total_bytes=3)},
        {"chunk": pb.FieldChunk(data=b"1234")},
    ],
    "abort of another field": [{"header": header()}, {"abort": pb.FieldAbort(sequence=2)}],
}


@pytest.mark.parametrize("messages", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_broken_rule_ends_the_stream_and_not_the_session(
    channel: grpc.Channel, session: str, messages: list[dict[str, object]]
) -> None:
    stream = WireStream(channel, session)
    for body in messages:
        stream.put(**body)
    with pytest.raises(grpc.RpcError) as caught:
        stream.next()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "PROTOCOL_VIOLATION"
    again = WireStream(channel, session, takeover=True)
    again.send(next(tissue_frames(1)), 1)
    assert again.result().verdict == pb.VERDICT_ACCEPTED
    again.end()


def test_a_stream_must_begin_with_start(channel: grpc.Channel) -> None:
    stream = WireStream(channel)
    stream.put(header=header())
    with pytest.raises(grpc.RpcError) as caught:
        stream.next()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def picture(encoding: int, data: bytes, **changes: object) -> tuple[pb.FieldHeader, bytes]:
    made = header(encoding=encoding, total_bytes=0, **changes)
    if not made.HasField("crc32"):
        made.crc32 = zlib.crc32(data)
    return made, data


def bad_fields() -> dict[str, tuple[pb.FieldHeader, bytes, str]]:
    frame = next(tissue_frames(1))
    jpeg = cv2.imencode(".jpg", frame.pixels)[1].tobytes()
    png = cv2.imencode(".png", frame.pixels)[1].tobytes()
    raw = frame.pixels.tobytes()
    small = np.zeros((64, 64, 3), np.uint8).tobytes()
    return {
        "truncated jpeg": (*picture(pb.ENCODING_JPEG, jpeg[:-200]), "DECODE_FAILED"),
        "jpeg of another size": (*picture(pb.ENCODING_JPEG, jpeg, width=100), "SIZE_MISMATCH"),
        "jpeg with a wrong crc": (*picture(pb.ENCODING_JPEG, jpeg, crc32=1), "CRC_MISMATCH"),
        "png cut off": (*picture(pb.ENCODING_PNG, png[: len(png) // 2]), "DECODE_FAILED"),
        "no picture": (*picture(pb.ENCODING_PNG, b"hello"), "DECODE_FAILED"),
        "format not read": (
            header(pixel_format=pb.PIXEL_FORMAT_MONO16, total_bytes=len(raw)),
            raw,
            "PIXEL_FORMAT_UNSUPPORTED",
        ),
        "stage that is not finite": (
            header(stage_x_um=float("nan")),
            raw,
            "POSITION_INVALID",
        ),
        "too many pixels": (
            *picture(pb.ENCODING_JPEG, jpeg, width=50_000, height=50_000),
            "TOO_MANY_PIXELS",
        ),
        "another size than the session": (
            header(width=64, height=64, total_bytes=len(small)),
            small,
            "FRAME_INVALID",
        ),
        "replaces none": (header(replaces_sequence=77), raw, "FIELD_NOT_FOUND"),
    }


@pytest.mark.parametrize("name", bad_fields())
def test_a_bad_field_is_one_error_and_the_stream_goes_on(
    channel: grpc.Channel, session: str, name: str
) -> None:
    bad, data, expected = bad_fields()[name]
    good = list(tissue_frames(3))
    stream = WireStream(channel, session)
    stream.send(good[0], 1)
    assert stream.result().verdict == pb.VERDICT_ACCEPTED
    bad.sequence = 2
    stream.send_bytes(bad, data)
    answer = stream.result()
    assert answer.error.reason == expected
    assert answer.error.message.endswith((".", ")"))
    assert (answer.verdict, answer.durable) == (pb.VERDICT_UNSPECIFIED, False)
    # Its number is free, and the stream lives.
    stream.send(good[1], 2)
    stream.send(good[2], 3)
    answers = [response.result for response in stream.end()]
    assert [a.verdict for a in answers] == [pb.VERDICT_ACCEPTED] * 2


def test_an_aborted_field_gives_its_credit_back(channel: grpc.Channel, session: str) -> None:
    frame = next(tissue_frames(1))
    stream = WireStream(channel, session)
    stream.put(header=encode_header(frame, 1))
    stream.put(chunk=pb.FieldChunk(data=b"abc"))
    stream.put(abort=pb.FieldAbort(sequence=1, reason="stage moved"))
    response = stream.next()
    assert (response.result.verdict, response.header_limit) == (pb.VERDICT_DROPPED, CREDITS + 1)
    stream.send(frame, 1)
    assert stream.result().verdict == pb.VERDICT_ACCEPTED
    stream.end()


def test_one_writer_at_a_time_and_takeover_fences_the_first(
    channel: grpc.Channel, session: str
) -> None:
    first = WireStream(channel, session)
    with pytest.raises(grpc.RpcError) as caught:
        WireStream(channel, session)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert reason(caught.value) == "SESSION_BUSY"
    second = WireStream(channel, session, takeover=True)
    with pytest.raises(grpc.RpcError) as caught:
        first.next()
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.ABORTED, "FENCED")
    second.send(next(tissue_frames(1)), 1)
    assert second.result().verdict == pb.VERDICT_ACCEPTED
    second.end()


def test_the_end_of_a_stream_suspends_and_never_closes(channel: grpc.Channel, session: str) -> None:
    assert state(channel, session) == pb.SESSION_STATE_OPEN
    stream = WireStream(channel, session)
    stream.send(next(tissue_frames(1)), 1)
    assert len(stream.end()) == 1
    assert state(channel, session) == pb.SESSION_STATE_SUSPENDED


KILLED_CLIENT = """
import os, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests/support"]
import grpc
from running_service import WireStream, tissue_frames
stream = WireStream(grpc.insecure_channel({address!r}), {session!r})
first, second = tissue_frames(2)
stream.send(first, 1)
stream.result()
stream.send(second, 2)
from edge_mil.rpc.frames import encode_header
stream.put(header=encode_header(second, 3))
import time; time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_client_leaves_the_session_suspended_with_what_it_sent(
    service: RunningService, channel: grpc.Channel, session: str
) -> None:
    code = KILLED_CLIENT.format(root=str(ROOT), address=service.address, session=session)
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -9
    for _ in range(100):
        if state(channel, session) == pb.SESSION_STATE_SUSPENDED:
            break
        time.sleep(0.05)
    stream = WireStream(channel, session)
    # Both whole fields are durable; of the third nothing is left.
    assert stream.ready.ready.session.durable_sequence == 2
    stream.send(list(tissue_frames(3))[2], 3)
    assert stream.result().verdict == pb.VERDICT_ACCEPTED
    stream.end()


def test_a_closed_session_takes_no_more_fields(channel: grpc.Channel, session: str) -> None:
    stub = rpc.SessionServiceStub(channel)
    open_stream = WireStream(channel, session)
    stub.CloseSession(pb.CloseSessionRequest(session_id=session))
    with pytest.raises(grpc.RpcError) as caught:
        open_stream.next()
    assert reason(caught.value) == "SESSION_CLOSED"
    with pytest.raises(grpc.RpcError) as caught:
        WireStream(channel, session)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(caught.value) == "SESSION_CLOSED"
