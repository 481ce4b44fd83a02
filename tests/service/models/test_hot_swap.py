"""The service changes what runs the extractor in the middle of a stream: INT8 stands in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from painted_field import field, painted
from running_service import RunningService, WireStream, open_session

from edge_mil.store import SessionReader
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

DEMO = Path(__file__).parents[3] / "edge_mil" / "demo" / "bundle"
SIDE, FIELDS = 256, 12
BOUND = 0.02


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    running = RunningService(DEMO, tmp_path_factory.mktemp("swap"), "", "--threads", "1")
    yield running
    running.stop()


@pytest.fixture
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with service.channel as made:
        yield made
        back = list(rpc.ModelServiceStub(made).LoadModel(pb.LoadModelRequest(precision="fp32")))
        assert back[-1].model.precision == "fp32"


def frames() -> list[Frame]:
    slide = painted(FIELDS * SIDE, SIDE)
    return [field(slide, SIDE * at, 0, SIDE, SIDE) for at in range(FIELDS)]


def swap(channel: grpc.Channel, precision: str, backend: str = "") -> list[pb.LoadModelResponse]:
    request = pb.LoadModelRequest(precision=precision, backend=backend)
    return list(rpc.ModelServiceStub(channel).LoadModel(request, timeout=120))


def probabilities(answer: pb.FieldResult) -> list[float]:
    return [found.probability for found in answer.score.classes]


def events(service: RunningService, session_id: str) -> list[dict[str, object]]:
    path = next((service.folder / "state").rglob(f"*{session_id}*/*.db"), None)
    path = path or next((service.folder / "state").rglob(f"{session_id}*.db"))
    found = SessionReader(path).events()
    return [json.loads(body) for _, kind, body in found if kind == "extractor"]


def test_a_swap_in_the_middle_of_a_stream_loses_no_field_and_changes_no_verdict(
    service: RunningService, channel: grpc.Channel
) -> None:
    wanted = WireStream(channel, open_session(channel).session_id)
    before: list[pb.FieldResult] = []
    for number, frame in enumerate(frames(), 1):
        wanted.send(frame, number)
        before.append(wanted.result())
    wanted.end()

    session = open_session(channel)
    stream = WireStream(channel, session.session_id)
    answers: list[pb.FieldResult] = []
    swapped: list[pb.LoadModelResponse] = []
    asking = threading.Thread(target=lambda: swapped.extend(swap(channel, "int8")))
    for number, frame in enumerate(frames(), 1):
        if number > 2:
            answers.append(stream.result())  # so that two fields are always under way
        stream.send(frame, number)
        if number == 4:
            asking.start()  # fields go on while the other runner is loaded and verified
        if number == 8:
            asking.join(60)
    answers += [stream.result(), stream.result()]
    stream.end()

    assert swapped[-1].state == "READY"
    assert swapped[-1].model.precision == "int8"
    assert [a.sequence for a in answers] == list(range(1, FIELDS + 1))
    assert [a.verdict for a in answers] == [b.verdict for b in before]
    assert [a.cells_added for a in answers] == [b.cells_added for b in before]
    moved = np.subtract(probabilities(answers[-1]), probabilities(before[-1]))
    assert 0 < np.abs(moved).max() <= BOUND
    (event,) = events(service, session.session_id)
    assert 4 < int(str(event["sequence"])) <= 9
    assert str(event["to"]).startswith("int8, ONNX Runtime")


def test_a_precision_that_the_bundle_lacks_changes_nothing(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        swap(channel, "fp16")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as unknown:
        swap(channel, "int4")
    assert "no precision 'int4'" in unknown.value.details()
    (model,) = rpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest()).models
    assert (model.state, model.precision) == ("READY", "fp32")


def test_a_session_begun_in_one_precision_goes_on_in_another_after_a_restart(
    service: RunningService, channel: grpc.Channel
) -> None:
    session = open_session(channel)
    stream = WireStream(channel, session.session_id)
    stream.send(frames()[0], 1)
    first = stream.result()
    stream.end()
    swap(channel, "int8")
    again = WireStream(channel, session.session_id)
    again.send(frames()[0], 1)
    replayed = again.result()
    assert replayed.replayed
    assert replayed.score == first.score
    again.send(frames()[1], 2)
    assert again.result().verdict == pb.VERDICT_ACCEPTED
    again.end()
    assert [event["sequence"] for event in events(service, session.session_id)] == [2]
