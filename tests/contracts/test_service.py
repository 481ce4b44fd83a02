"""What a client can rely on, of the real service and of the fake one for authors of clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from running_service import RunningService, WireStream, open_session, tissue_frames
from wire_fixtures import bundle

from edge_mil.client import Client
from edge_mil.errors import BadInputError, BusyError, RemoteError
from edge_mil.rpc.frames import encode_header
from edge_mil.rpc.status import REASON_KEY
from edge_mil.testing.service import FakeRules, FakeService
from edge_mil.types import FieldResult, Frame, Verdict
from edge_mil.v1 import edge_mil_pb2 as pb

__all__ = ["bundle"]

CREDITS = 3


class RealUnderTest:
    """`edge-mil serve` in its own process; its streams break when it is killed."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self._service = RunningService(bundle, folder)
        self.address = self._service.address

    def break_streams(self) -> None:
        self._service.kill()
        self._service.start(ready=False)

    def stop(self) -> None:
        assert self._service.stop() == 0


class FakeUnderTest:
    """The fake, as slow as a small model, so that a client can run ahead of it."""

    def __init__(self) -> None:
        def slowly(frame: Frame) -> Verdict:
            time.sleep(0.02)
            return Verdict.ACCEPTED

        self._service = FakeService(rules=FakeRules(verdict=slowly))
        self._service.start()
        self.address = self._service.address

    def break_streams(self) -> None:
        self._service.drop_streams()

    def stop(self) -> None:
        self._service.stop()


Service = RealUnderTest | FakeUnderTest


@pytest.fixture(scope="module", params=["real", "fake"])
def service(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    if request.param == "real":
        running: Service = RealUnderTest(bundle, tmp_path_factory.mktemp("service"))
    else:
        running = FakeUnderTest()
    yield running
    running.stop()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.address) as opened:
        yield opened


@pytest.fixture
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.address) as opened:
        yield opened


def reason(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata()).get(REASON_KEY, "")


def test_the_bundle_is_listed_and_ready(client: Client) -> None:
    (model,) = client.models()
    assert (model.state, model.classes) == ("READY", ("negative", "positive"))
    assert model.digest.startswith("sha256:")
    assert client.server_info().credits == CREDITS


def test_a_slide_is_read_from_opening_to_closing(client: Client) -> None:
    told: list[tuple[FieldResult, Frame]] = []
    session = client.open_session(mpp=0.5, slide_label="A 17", labels={"a": "b"})
    frames = list(tissue_frames(6))
    summary = session.send_frames(frames, lambda result, frame: told.append((result, frame)))
    # One answer for each field, in the order in which they were sent.
    assert [result.sequence for result, _ in told] == [1, 2, 3, 4, 5, 6]
    assert all(frame is sent for (_, frame), sent in zip(told, frames, strict=True))
    assert (summary.answered, dict(summary.verdicts)) == (6, {"ACCEPTED": 6})
    assert session.score().score == summary.last.score
    closed = session.close(expected_fields=6)
    assert closed.score == summary.last.score
    assert (closed.info.state, closed.info.durable_sequence) == ("CLOSED", 6)
    assert closed.report["session"] == session.session_id
    assert closed.report["score"]["logits"] == list(closed.score.logits)
    assert session.close().report_json == closed.report_json


def test_there_is_no_score_before_the_first_field(client: Client) -> None:
    session = client.open_session(mpp=0.5)
    assert session.score().score is None
    assert session.mosaic() is None
    assert session.fields() == []


def test_the_same_fields_in_another_session_have_the_same_score(client: Client) -> None:
    frames = list(tissue_frames(4))
    scores = []
    for _ in range(2):
        session = client.open_session(mpp=0.5)
        session.send_frames(frames)
        scores.append(session.score().score)
    assert scores[0] == scores[1]


def test_a_number_sent_again_gets_its_first_answer_and_counts_once(channel: grpc.Channel) -> None:
    session, frame = open_session(channel).session_id, next(tissue_frames(1))
    stream = WireStream(channel, session)
    stream.send(frame, 1)
    first = stream.result()
    stream.send(frame, 1)
    again = stream.result()
    stream.end()
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.verdict, again.score) == (first.verdict, first.score)


def test_a_number_of_another_field_is_an_error_of_that_field(channel: grpc.Channel) -> None:
    first, second = tissue_frames(2)
    stream = WireStream(channel, open_session(channel).session_id)
    stream.send(first, 1)
    stream.result()
    stream.send(second, 1)
    assert stream.result().error.reason == "SEQUENCE_CONFLICT"
    stream.send(second, 2)
    assert stream.result().verdict == pb.VERDICT_ACCEPTED
    stream.end()


def test_credits_grow_with_each_answer_and_bound_a_client(channel: grpc.Channel) -> None:
    stream = WireStream(channel, open_session(channel).session_id)
    assert stream.ready.header_limit == CREDITS
    frames = list(tissue_frames(16))
    stream.send(frames[0], 1)
    assert stream.next().header_limit == CREDITS + 1
    for sequence, frame in enumerate(frames[1:], 2):
        stream.send(frame, sequence)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream.call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == "NO_CREDIT"


HEADER = encode_header(next(tissue_frames(1)), 1)
VIOLATIONS = {
    "chunk before header": [{"chunk": pb.FieldChunk(data=b"x")}],
    "second start": [{"start": pb.StreamStart(session_id="x")}],
    "empty message": [{}],
    "two headers": [{"header": HEADER}, {"header": HEADER}],
    "gap": [{"header": HEADER}, {"chunk": pb.FieldChunk(offset=5, data=b"x")}],
    "abort of another field": [{"header": HEADER}, {"abort": pb.FieldAbort(sequence=2)}],
}


@pytest.mark.parametrize("messages", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_broken_rule_ends_the_stream_and_not_the_session(
    channel: grpc.Channel, messages: list[dict[str, object]]
) -> None:
    session = open_session(channel).session_id
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


def test_an_aborted_field_is_dropped_and_its_number_is_free(channel: grpc.Channel) -> None:
    stream = WireStream(channel, open_session(channel).session_id)
    stream.put(header=HEADER)
    stream.put(abort=pb.FieldAbort(sequence=1))
    assert stream.result().verdict == pb.VERDICT_DROPPED
    stream.send(next(tissue_frames(1)), 1)
    assert stream.result().verdict == pb.VERDICT_ACCEPTED
    stream.end()


def test_one_client_writes_at_a_time_and_another_may_take_over(
    client: Client, service: Service
) -> None:
    session, frames = client.open_session(mpp=0.5), list(tissue_frames(2))
    stream = session.stream()
    stream.send(frames[0])
    stream.drain()
    with Client(service.address) as other:
        taken = other.resume(session.session_id).stream(takeover=True)
        taken.send(frames[1])
        taken.drain()
        with pytest.raises(BusyError) as caught:
            stream.finish()
        assert caught.value.reason == "FENCED"
        assert taken.finish().answered == 1
    stream.abandon()


def test_a_second_stream_without_takeover_is_refused(channel: grpc.Channel) -> None:
    session = open_session(channel).session_id
    first = WireStream(channel, session)
    with pytest.raises(grpc.RpcError) as caught:
        WireStream(channel, session)
    assert (caught.value.code(), reason(caught.value)) == (
        grpc.StatusCode.ABORTED,
        "SESSION_BUSY",
    )
    first.end()


def test_a_session_is_suspended_when_its_stream_ends_and_goes_on_by_its_id(client: Client) -> None:
    frames = list(tissue_frames(5))
    first = client.open_session(mpp=0.5)
    assert first.info().state == "OPEN"
    first.send_frames(frames[:3])
    second = client.resume(first.session_id)
    assert (second.opened.state, second.opened.last_sequence) == ("SUSPENDED", 3)
    assert second.send_frames(frames[3:]).last.sequence == 5


def test_a_broken_stream_goes_on_by_itself(client: Client, service: Service) -> None:
    told: list[str] = []
    answered: list[int] = []

    def disturb(result: FieldResult, _: Frame) -> None:
        answered.append(result.sequence)
        if result.sequence == 3:
            service.break_streams()

    session = client.open_session(mpp=0.5)
    summary = session.send_frames(
        tissue_frames(8),
        disturb,
        on_disconnected=lambda _: told.append("away"),
        on_resumed=lambda: told.append("back"),
    )
    assert told == ["away", "back"]
    assert answered == list(range(1, 9))
    assert (summary.answered, summary.reconnects) == (8, 1)
    session.close(expected_fields=8)


def test_sessions_are_listed_newest_first(client: Client) -> None:
    made = [client.open_session(mpp=0.5).session_id]
    time.sleep(0.01)  # ids of one millisecond have no order
    made.append(client.open_session(mpp=0.5).session_id)
    listed = [info.session_id for info in client.sessions()]
    assert listed.index(made[1]) < listed.index(made[0])


def test_fields_are_listed_with_what_they_were_answered(client: Client) -> None:
    session, results = client.open_session(mpp=0.5), []
    session.send_frames(tissue_frames(3), lambda result, _: results.append(result))
    fields = session.fields()
    assert [field.sequence for field in fields] == [1, 2, 3]
    assert [field.result.score for field in fields] == [result.score for result in results]
    assert (fields[1].x_um, fields[1].y_um, fields[1].width_um) == (144.0, 48.0, 96.0)


def test_influences_and_layers_are_maps_of_the_instances(client: Client) -> None:
    session = client.open_session(mpp=0.5)
    session.send_frames(tissue_frames(6))
    influence = session.heat_map("positive")
    assert np.isfinite(influence.values).sum() == session.info().instances
    for name in ("focus", "coverage"):
        layer = session.layer(name)
        assert np.isfinite(layer.values).any()
        assert (layer.um_per_column, layer.um_per_row) == (
            influence.um_per_column,
            influence.um_per_row,
        )
    top = session.top_fields(3)
    sizes = [abs(field.influence or 0.0) for field in top]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    mosaic = session.mosaic()
    assert mosaic is not None
    assert mosaic.jpeg.startswith(b"\xff\xd8")
    assert session.thumbnail(1).startswith(b"\xff\xd8")


def test_a_removed_field_leaves_the_score_and_stays_listed(client: Client) -> None:
    session, frames = client.open_session(mpp=0.5), list(tissue_frames(3))
    session.send_frames(frames[:2])
    two = session.score()
    session.send_frames(frames[2:])
    three = session.score()
    after = session.remove_field(3, "a hair")
    assert after.score == two.score
    assert after.revision > three.revision
    assert [field.removed for field in session.fields()] == [False, False, True]
    with pytest.raises(BadInputError) as caught:
        session.remove_field(9, "none")
    assert caught.value.reason == "FIELD_NOT_FOUND"


def test_a_field_of_another_size_is_told_and_the_rest_goes_on(client: Client) -> None:
    frames = list(tissue_frames(3))
    frames[1] = Frame(np.zeros((10, 10, 3), np.uint8), 10.0, 10.0)
    errors: list[RemoteError] = []
    session = client.open_session(mpp=0.5)
    summary = session.send_frames(frames, on_error=lambda error, _: errors.append(error))
    assert (summary.answered, len(summary.errors)) == (2, 1)
    assert errors[0].reason == "FRAME_INVALID"
    session.close(expected_fields=2)


def test_watching_ends_when_the_session_is_closed(client: Client) -> None:
    session = client.open_session(mpp=0.5)
    seen = []
    watcher = threading.Thread(target=lambda: seen.extend(session.watch()))
    watcher.start()
    session.send_frames(tissue_frames(3))
    last = session.close().score
    watcher.join(timeout=10)
    assert (seen[-1].state, seen[-1].score) == ("CLOSED", last)
    revisions = [score.revision for score in seen]
    assert revisions == sorted(revisions)


def test_the_same_request_is_the_same_session(client: Client) -> None:
    first = client.open_session(mpp=0.5, request_id="contract-1")
    assert client.open_session(mpp=0.5, request_id="contract-1").session_id == first.session_id
    with pytest.raises(RemoteError) as caught:
        client.open_session(mpp=0.4, request_id="contract-1")
    assert (caught.value.code, caught.value.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


def closed_session(client: Client) -> None:
    session = client.open_session(mpp=0.5)
    session.close()
    session.send_frames(tissue_frames(1))


REFUSED: dict[str, tuple[Callable[[Client], object], str, str]] = {
    "no pixel size": (lambda c: c.open_session(), "INVALID_ARGUMENT", "PIXEL_SIZE_UNKNOWN"),
    "two pixel sizes": (
        lambda c: c.open_session(
            mpp=0.5, optics=pb.Optics(camera_pixel_um=5, objective_magnification=20)
        ),
        "INVALID_ARGUMENT",
        "OPTICS_MISMATCH",
    ),
    "another bundle": (
        lambda c: c.open_session("other", mpp=0.5),
        "NOT_FOUND",
        "BUNDLE_NOT_FOUND",
    ),
    "no such calibration": (
        lambda c: c.open_session(mpp=0.5, calibration="none"),
        "FAILED_PRECONDITION",
        "CALIBRATION_NOT_FOUND",
    ),
    "no such session": (lambda c: c.resume("none"), "NOT_FOUND", "SESSION_NOT_FOUND"),
    "fields are missing": (
        lambda c: c.open_session(mpp=0.5).close(expected_fields=3),
        "FAILED_PRECONDITION",
        "FIELDS_MISSING",
    ),
    "a closed session": (closed_session, "FAILED_PRECONDITION", "SESSION_CLOSED"),
    "no such class": (
        lambda c: c.open_session(mpp=0.5).top_fields(class_name="none"),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    "no such layer": (
        lambda c: c.open_session(mpp=0.5).layer("depth"),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    "no thumbnail": (
        lambda c: c.open_session(mpp=0.5).thumbnail(1),
        "INVALID_ARGUMENT",
        "FIELD_NOT_FOUND",
    ),
}


@pytest.mark.parametrize(("call", "code", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_has_its_code_its_reason_and_its_group(
    client: Client, call: Callable[[Client], object], code: str, expected: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        call(client)
    assert isinstance(caught.value, RemoteError)
    assert (caught.value.code, caught.value.reason) == (code, expected)


def test_a_calibration_is_measured_listed_and_used(client: Client) -> None:
    glass = [Frame(np.full((96, 128, 3), 230, np.uint8)) for _ in range(4)]
    made = client.calibrate("flat-field", "contract", glass, mpp=0.5)
    assert (made.name, set(made.measured)) == ("contract", {"flat-field"})
    assert "contract" in {found.name for found in client.calibrations()}
    assert client.open_session(calibration="contract").info().calibration == "contract"
