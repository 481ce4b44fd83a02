"""What a test of a client can script with the fake service, and that it needs no engine for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_mil.client import Client
from edge_mil.errors import (
    BackendLostError,
    FrameError,
    RemoteBusyError,
    RemoteError,
    RemoteUnavailableError,
    ServiceUnavailableError,
    SessionBusyError,
    StoreError,
)
from edge_mil.testing.service import CLASSES, FakeRules, FakeService, mean_darkness
from edge_mil.types import Frame, SlideScore, Verdict


def fields(count: int) -> list[Frame]:
    """Fields of one shade each, 32 um wide, side by side."""
    shades = np.linspace(0, 255, count).astype(np.uint8)
    return [
        Frame(np.full((48, 64, 3), shade, np.uint8), 32.0 * at, 0.0)
        for at, shade in enumerate(shades)
    ]


def test_the_score_is_a_function_that_a_test_can_compute() -> None:
    with FakeService() as service, Client(service.address) as client:
        session = client.open_session(mpp=0.5)
        frames = fields(4)
        session.send_frames(frames)
        assert session.score().score == mean_darkness(frames)
        # Darkness is 1, 2/3, 1/3 and 0, so the mean is a half.
        assert session.score().score.logits == pytest.approx((0.0, 0.5), abs=0.01)
        influence = session.heat_map("positive")
        assert influence.values.shape == (1, 4)
        without_first = mean_darkness(frames[1:]).logits[1]
        assert influence.values[0, 0] == pytest.approx(0.5 - without_first, abs=0.01)


def test_rules_say_the_verdict_the_score_and_the_error_of_a_field() -> None:
    def verdict(frame: Frame) -> Verdict:
        return Verdict.BLURRED if frame.pixels.max() > 200 else Verdict.ACCEPTED

    def score(frames: Sequence[Frame]) -> SlideScore:
        return SlideScore(CLASSES, (0.0, float(len(frames))), (0.25, 0.75), len(frames))

    def error(frame: Frame) -> FrameError | None:
        return FrameError("It is black.") if frame.pixels.max() == 0 else None

    rules = FakeRules(verdict=verdict, score=score, error=error)
    with FakeService(rules=rules) as service, Client(service.address) as client:
        session = client.open_session(mpp=0.5)
        summary = session.send_frames(fields(4))
        assert dict(summary.verdicts) == {"ACCEPTED": 2, "BLURRED": 1}
        assert summary.errors == ("It is black.",)
        assert session.score().score.logits == (0.0, 2.0)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ServiceUnavailableError("Not now."), RemoteUnavailableError),
        (SessionBusyError("Another one has it."), RemoteBusyError),
        (BackendLostError("The GPU is gone."), RemoteError),
    ],
)
def test_the_next_calls_of_a_method_fail_as_they_are_told(
    error: Exception, raised: type[RemoteError]
) -> None:
    with FakeService() as service, Client(service.address) as client:
        session = client.open_session(mpp=0.5)
        service.fail("GetScore", error, times=2)
        for _ in range(2):
            with pytest.raises(raised, match=str(error)):
                session.score()
        assert session.score().score is None


def test_a_stream_that_is_told_to_wait_is_tried_again() -> None:
    with FakeService() as service, Client(service.address) as client:
        session = client.open_session(mpp=0.5)
        service.fail("StreamFields", StoreError("The disk is full.", retry_after_s=0.1))
        summary = session.send_frames(fields(3))
    assert (summary.answered, summary.reconnects) == (3, 1)


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_sessions_outlive_a_restart_at_the_same_address(tmp_path: Path, listen: str) -> None:
    address = "127.0.0.1:0" if listen == "tcp" else f"unix:{tmp_path / 's'}"
    service = FakeService(address)
    service.start()
    try:
        with Client(service.address) as client:
            session = client.open_session(mpp=0.5)
            frames = fields(4)

            def restart(*_: object) -> None:
                if not restarted:
                    restarted.append(service.address)
                    service.stop()
                    service.start()

            restarted: list[str] = []
            assert session.send_frames(frames, restart).answered == 4
            assert restarted == [service.address]
            assert session.close(expected_fields=4).score == mean_darkness(frames)
    finally:
        service.stop()


def test_a_service_that_was_stopped_cannot_be_reached() -> None:
    service = FakeService()
    service.start()
    service.stop()
    with (
        Client(service.address, connect_timeout_s=0.2) as client,
        pytest.raises(ServiceUnavailableError),
    ):
        client.models()


PROGRAM = """
import numpy as np
import edge_mil
from edge_mil.testing.service import FakeService
from edge_mil.types import Frame

frames = [Frame(np.full((48, 64, 3), 10 * i, np.uint8), 32.0 * i, 0.0) for i in range(3)]
with FakeService() as service, edge_mil.Client(service.address) as client:
    session = client.open_session(mpp=0.5)
    session.send_frames(frames)
    print(session.close(expected_fields=3).score.instances)
"""


def test_it_needs_what_the_light_client_needs() -> None:
    absent = (
        *("cv2", "onnxruntime", "openslide", "h5py", "msgspec", "rfc8785", "platformdirs"),
        *("google.rpc", "grpc_status", "grpc_health", "grpc_reflection", "onnx", "torch"),
    )
    prefix = f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", prefix + PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "3\n"
