"""The service dies and comes back; the client resumes by itself and the score is the same."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_service import RunningService, tissue_frames

import edge_mil
from edge_mil.errors import ServiceUnavailableError
from edge_mil.types import FieldResult, Frame, SlideScore

FIELDS = 24


@pytest.fixture
def restartable(bundle: Path, tmp_path: Path) -> Iterator[RunningService]:
    running = RunningService(bundle, tmp_path)
    yield running
    running.stop()


def read(
    service: RunningService, disturb: Callable[[FieldResult, Frame], None] | None = None
) -> tuple[SlideScore, int, list[str]]:
    told: list[str] = []
    with edge_mil.Client(service.address) as client:
        session = client.open_session(mpp=0.5)
        summary = session.send_frames(
            tissue_frames(FIELDS),
            disturb,
            on_disconnected=lambda _: told.append("away"),
            on_resumed=lambda: told.append("back"),
        )
        assert summary.answered == FIELDS
        closed = session.close(expected_fields=FIELDS)
        assert closed.info.durable_sequence == FIELDS
        assert closed.score is not None
        return closed.score, closed.info.instances, told


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "restarted"])
def test_the_score_is_the_same_to_the_bit_after_the_service_was(
    restartable: RunningService, how: signal.Signals
) -> None:
    undisturbed, instances, told = read(restartable)
    assert told == []
    left = [5, 6, 17]

    def disturb(result: FieldResult, _: Frame) -> None:
        if result.sequence in left:
            left.remove(result.sequence)
            restartable.process.send_signal(how)
            restartable.process.wait(30)
            restartable.start(ready=False)

    score, held, told = read(restartable, disturb)
    assert left == []
    assert (score, held) == (undisturbed, instances)
    assert told.count("away") == told.count("back") >= 2


def test_every_answer_is_told_once_and_in_order(restartable: RunningService) -> None:
    seen: list[int] = []

    def disturb(result: FieldResult, _: Frame) -> None:
        seen.append(result.sequence)
        if result.sequence in (4, 9, 15):
            restartable.kill()
            restartable.start(ready=False)

    read(restartable, disturb)
    assert seen == list(range(1, FIELDS + 1))


def test_a_source_that_waits_starts_before_the_service_is_back(
    restartable: RunningService,
) -> None:
    with edge_mil.Client(restartable.address) as client:
        session = client.open_session(mpp=0.5)
        restartable.kill()
        threading.Timer(1.0, restartable.start).start()
        assert session.send_frames(tissue_frames(3)).answered == 3


def test_a_service_that_stays_away_is_given_up(restartable: RunningService) -> None:
    with edge_mil.Client(restartable.address) as client:
        session = client.open_session(mpp=0.5)
        restartable.kill()
        with pytest.raises(ServiceUnavailableError, match="cannot be reached"):
            session.send_frames(tissue_frames(3), give_up_after_s=0.5)
        restartable.start()


def test_a_request_id_survives_a_restart(restartable: RunningService) -> None:
    with edge_mil.Client(restartable.address) as client:
        first = client.open_session(mpp=0.5, request_id="r-1")
        restartable.kill()
        restartable.start()
        again = client.open_session(mpp=0.5, request_id="r-1")
    assert again.session_id == first.session_id
