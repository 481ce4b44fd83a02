"""`edge_mil.Client` against a real service."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from running_service import RunningService, tissue_frames

import edge_mil
from edge_mil.errors import RemoteError, ServiceUnavailableError
from edge_mil.types import FieldResult, Frame, Region


@pytest.fixture
def client(service: RunningService):
    with edge_mil.Client(service.address) as opened:
        yield opened


def test_a_slide_is_read_from_opening_to_closing(client: edge_mil.Client) -> None:
    seen: list[tuple[FieldResult, Frame]] = []
    session = client.open_session(mpp=0.5, labels={"a": "b"})
    frames = list(tissue_frames(6))
    summary = session.send_frames(frames, lambda result, frame: seen.append((result, frame)))
    assert [result.sequence for result, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert all(frame is sent for (_, frame), sent in zip(seen, frames, strict=True))
    assert (summary.answered, dict(summary.verdicts)) == (6, {"ACCEPTED": 6})
    score = session.score()
    assert score.score == summary.last.score
    closed = session.close(expected_fields=6)
    assert closed.score == score.score
    assert closed.info.state == "CLOSED"
    assert closed.report["session"] == session.session_id


def test_a_session_is_resumed_by_its_id_and_counts_on(client: edge_mil.Client) -> None:
    frames = list(tissue_frames(6))
    first = client.open_session(mpp=0.5)
    first.send_frames(frames[:4])
    second = client.resume(first.session_id)
    assert second.opened.last_sequence == 4
    summary = second.send_frames(frames[4:])
    assert summary.last.sequence == 6
    whole = client.open_session(mpp=0.5)
    whole.send_frames(frames)
    assert whole.score().score == second.score().score


def test_fields_influences_layers_and_the_mosaic_can_be_read(client: edge_mil.Client) -> None:
    session = client.open_session(mpp=0.5, tissue=[Region(0, 0, 384, 96)])
    session.send_frames(tissue_frames(4))
    assert session.info().coverage == 1.0
    fields = session.fields()
    assert [field.sequence for field in fields] == [1, 2, 3, 4]
    assert session.top_fields(2)[0].influence is not None
    heat = session.heat_map("negative")
    assert np.isfinite(heat.values).sum() == session.info().instances
    assert session.thumbnail(1).startswith(b"\xff\xd8")
    assert session.layer("focus").values.shape == heat.values.shape
    mosaic = session.mosaic()
    assert mosaic is not None
    assert mosaic.jpeg.startswith(b"\xff\xd8")
    before = session.score()
    after = session.remove_field(4, "a hair")
    assert after.revision > before.revision
    assert session.session_id in {found.session_id for found in client.sessions()}


def test_watching_ends_when_the_session_is_closed(client: edge_mil.Client) -> None:
    session = client.open_session(mpp=0.5)
    seen = []
    watcher = threading.Thread(target=lambda: seen.extend(session.watch()))
    watcher.start()
    session.send_frames(tissue_frames(3))
    last = session.close().score
    watcher.join(timeout=10)
    assert (seen[-1].state, seen[-1].score) == ("CLOSED", last)


def test_what_the_service_refuses_is_one_sentence_with_a_reason(client: edge_mil.Client) -> None:
    with pytest.raises(RemoteError) as caught:
        client.open_session()
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "PIXEL_SIZE_UNKNOWN")
    with pytest.raises(RemoteError, match="no session"):
        client.resume("nope")
    with pytest.raises(RemoteError, match="no bundle 'other'"):
        client.open_session("other", mpp=0.5)


def test_a_field_that_cannot_be_processed_is_told_and_the_rest_goes_on(
    client: edge_mil.Client,
) -> None:
    session = client.open_session(mpp=0.5)
    frames = list(tissue_frames(4))
    frames[1] = Frame(np.zeros((10, 10, 3), np.uint8), 10.0, 10.0, name="small.png")
    told: list[tuple[RemoteError, Frame]] = []
    summary = session.send_frames(frames, on_error=lambda *what: told.append(what))
    assert (summary.answered, len(summary.errors)) == (3, 1)
    assert told[0][0].reason == "FRAME_INVALID"
    assert told[0][1].name == "small.png"
    # The number was used again, so nothing is missing.
    assert session.info().last_sequence in (3, 4)
    session.close(expected_fields=3)


def test_what_the_callers_function_raises_reaches_the_caller(client: edge_mil.Client) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.open_session(mpp=0.5).send_frames(tissue_frames(3), fail)


def test_a_live_camera_never_waits_and_drops_are_told(client: edge_mil.Client) -> None:
    session = client.open_session(mpp=0.5)
    frame = next(tissue_frames(1, side=1024))
    with session.stream(live=True) as stream:
        began = time.monotonic()
        for _ in range(60):
            stream.send(frame)
        waited = time.monotonic() - began
        summary = stream.finish()
    assert waited < 1.0
    assert summary.dropped > 0
    assert summary.answered + summary.dropped == 60
    # Drops make no gaps.
    assert session.info().durable_sequence == summary.answered


def test_a_second_client_is_refused_and_may_take_over(service: RunningService) -> None:
    with edge_mil.Client(service.address) as one, edge_mil.Client(service.address) as two:
        session = one.open_session(mpp=0.5)
        frames = list(tissue_frames(2))
        stream = session.stream()
        stream.send(frames[0])
        stream.drain()
        other = two.resume(session.session_id)
        with other.stream(takeover=True) as taken:
            taken.send(frames[1])
            taken.drain()
            with pytest.raises(RemoteError) as caught:
                stream.finish()
            assert caught.value.reason == "FENCED"
            assert taken.finish().answered == 1
        stream.abandon()


def test_a_service_that_is_not_there_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        edge_mil.Client(address, connect_timeout_s=0.5) as client,
        pytest.raises(ServiceUnavailableError, match="edge-mil serve"),
    ):
        client.models()


def test_a_service_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with (
            edge_mil.Client(f"unix:{path}", call_timeout_s=0.5) as client,
            pytest.raises(ServiceUnavailableError),
        ):
            client.server_info()
