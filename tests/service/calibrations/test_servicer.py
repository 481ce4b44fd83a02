"""Calibrations over the wire: measured, listed, used by sessions, refused elsewhere."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from msgspec import structs
from painted_field import field, painted
from running_service import RunningService, WireStream, open_session

from edge_mil.calibration import Calibration, CalibrationFolder
from edge_mil.calibration.calibration import DAY_S
from edge_mil.cli import main
from edge_mil.client import Client
from edge_mil.errors import RemoteError
from edge_mil.rpc.frames import encode_header
from edge_mil.rpc.status import REASON_KEY
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

WIDTH, HEIGHT = 256, 192
GLASS = np.array([230.0, 215.0, 200.0])


def light(depth: float) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    radius = ((x / WIDTH - 0.5) ** 2 + (y / HEIGHT - 0.5) ** 2) * 2
    return (1 - depth * radius)[..., None]


def seen(scene: np.ndarray, depth: float = 0.5) -> np.ndarray:
    """What this microscope shows of a scene whose glass is at level 230."""
    shaded = scene * light(depth) * (GLASS / GLASS.max())
    return np.clip(np.rint(shaded), 0, 255).astype(np.uint8)


def glass(count: int = 4) -> list[Frame]:
    return [Frame(seen(np.full((HEIGHT, WIDTH, 3), 230.0))) for _ in range(count)]


def moved(count: int = 5) -> list[Frame]:
    """Fields of tissue, a third of a field apart, at 0.5 um/px."""
    slide = painted(640, 480)
    corners = [(0, 0), (90, 6), (8, 70), (96, 66), (180, 72)][:count]
    fields = [field(slide, x, y, WIDTH, HEIGHT) for x, y in corners]
    return [Frame(seen(f.pixels.astype(float)), f.x_um, f.y_um) for f in fields]


@pytest.fixture
def client(service: RunningService) -> Client:
    with Client(service.address) as opened:
        yield opened


def stored(service: RunningService) -> CalibrationFolder:
    return CalibrationFolder(service.folder / "state")


def calibrated(client: Client, name: str, objective: str = "20x") -> None:
    client.calibrate("flat-field", name, glass(), objective=objective)
    client.calibrate("white-balance", name, glass(1))
    client.calibrate("pixel-size", name, moved())


def test_three_parts_are_measured_and_a_session_runs_under_them(
    client: Client, service: RunningService
) -> None:
    calibrated(client, "20x")
    (listed,) = [entry for entry in client.calibrations() if entry.name == "20x"]
    assert set(listed.measured) == {"flat-field", "white-balance", "pixel-size"}
    assert listed.objective == "20x"
    assert listed.mpp == pytest.approx(0.5, rel=0.01)
    assert listed.frame_px == (WIDTH, HEIGHT)
    assert listed.white_gains == pytest.approx(GLASS.max() / GLASS, rel=0.02)
    assert listed.background == pytest.approx([230.0] * 3, abs=2)
    assert listed.digest == stored(service).load("20x").digest

    session = client.open_session(calibration="20x")
    assert (session.info().calibration, session.info().calibration_digest) == ("20x", listed.digest)
    assert session.info().mpp_source == "calibration"
    assert session.info().mpp == listed.mpp
    assert client.resume(session.session_id).info().calibration_digest == listed.digest
    assert [s.calibration for s in client.sessions() if s.session_id == session.session_id] == [
        "20x"
    ]


def test_under_a_calibration_a_shaded_slide_scores_as_a_clean_one(client: Client) -> None:
    calibrated(client, "clean")
    stage = [0.5, 0.0, 0.0, 0.5]
    slide = painted(512, 384)
    corners = [(x, y) for y in (0, 192) for x in (0, 256)]
    scores = {}
    for name, depth in (("clean", 0.0), ("shaded", 0.5)):
        session = client.open_session(
            mpp=0.5,
            calibration="clean" if depth else "",
            stage=pb.StageFrame(unit="um", pixel_size_affine=[*stage[:2], 0, *stage[2:], 0]),
        )
        frames = []
        for x, y in corners:
            clean = field(slide, x, y, WIDTH, HEIGHT)
            pixels = seen(clean.pixels.astype(float), depth) if depth else clean.pixels
            frames.append(Frame(pixels, clean.x_um, clean.y_um))
        session.send_frames(iter(frames))
        closed = session.close()
        assert closed.score is not None
        assert closed.score.instances > 0
        scores[name] = np.array(closed.score.probabilities)
    assert np.abs(scores["clean"] - scores["shaded"]).max() < 0.02


def test_it_stays_when_the_service_is_killed(bundle: Path, tmp_path: Path) -> None:
    running = RunningService(bundle, tmp_path)
    try:
        with Client(running.address) as client:
            calibrated(client, "kept")
            session = client.open_session(calibration="kept")
            digest, number = session.info().calibration_digest, session.session_id
        running.kill()
        # Measured anew meanwhile: the session goes on under what it began with, or not at all.
        folder = CalibrationFolder(tmp_path / "state")
        folder.save(replace(folder.load("kept"), mpp=0.51))
        running.start()
        with Client(running.address) as client:
            assert client.resume(number).info().calibration_digest == digest
            assert client.calibrations()[0].digest != digest
    finally:
        running.stop()


def test_a_session_is_not_resumed_under_one_that_was_measured_anew(
    client: Client,
    service: RunningService,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = time.time()
    first = Calibration("again", measured={"pixel-size": now}, mpp=0.5)
    stored(service).save(first)
    session = client.open_session(calibration="again")
    cv2.imwrite(str(tmp_path / "a_x48_y64.png"), field(painted(), 0, 0).pixels)
    words = ["stream", str(tmp_path), "--server", service.address, "--mpp", "0.5", "--session"]
    words += [session.session_id, "--calibration", "again"]
    stored(service).save(first.with_part("pixel-size", now + 1, mpp=0.501))
    assert main(words) == 2
    assert "the one that it began with" in capsys.readouterr().err
    stored(service).save(first)
    assert main(words) == 0


def test_a_stale_calibration_is_refused_and_may_be_allowed(
    client: Client, service: RunningService
) -> None:
    old = Calibration("old", measured={"pixel-size": time.time() - 40 * DAY_S}, mpp=0.5)
    stored(service).save(old)
    with pytest.raises(RemoteError, match="40 days ago") as caught:
        client.open_session(calibration="old")
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "CALIBRATION_STALE")
    session = client.open_session(calibration="old", calibration_max_age_days=50)
    assert session.info().calibration == "old"


FOREIGN = {
    "objective": {"optics": pb.Optics(objective_label="40x")},
    "pixel size": {"mpp": 0.25},
    "sensor and magnification": {
        "optics": pb.Optics(camera_pixel_um=5.0, objective_magnification=40)
    },
}


@pytest.mark.parametrize("asked", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_calibration_is_refused(
    client: Client, service: RunningService, asked: dict[str, object]
) -> None:
    known = Calibration("mine", measured={"pixel-size": time.time()}, mpp=0.5)
    stored(service).save(replace(known, optics=structs.replace(known.optics, objective="20x")))
    with pytest.raises(RemoteError) as caught:
        client.open_session(calibration="mine", **asked)
    assert caught.value.reason == "CALIBRATION_FOREIGN"


@pytest.mark.parametrize("name", ["nowhere", "../../etc/passwd"])
def test_an_unknown_one_is_refused(client: Client, name: str) -> None:
    with pytest.raises(RemoteError) as caught:
        client.open_session(calibration=name)
    assert caught.value.code == "FAILED_PRECONDITION"


def test_a_damaged_one_is_refused_and_hides_no_other(
    client: Client, service: RunningService
) -> None:
    folder = stored(service)
    for name in ("good", "bad"):
        folder.save(Calibration(name, measured={"pixel-size": time.time()}, mpp=0.5))
    file = folder.root / "bad.calibration"
    file.write_bytes(file.read_bytes()[:-2])
    names = {entry.name for entry in client.calibrations()}
    assert "good" in names
    assert "bad" not in names
    with pytest.raises(RemoteError) as caught:
        client.open_session(calibration="bad")
    assert caught.value.reason == "CALIBRATION_DAMAGED"


def test_frames_that_do_not_do_change_nothing(client: Client, service: RunningService) -> None:
    calibrated(client, "firm")
    before = stored(service).load("firm").digest
    with pytest.raises(RemoteError, match="needs 4"):
        client.calibrate("flat-field", "firm", glass(2))
    with pytest.raises(RemoteError, match="no empty glass"):
        client.calibrate("white-balance", "firm", moved(1))
    with pytest.raises(RemoteError) as caught:
        client.calibrate("pixel-size", "firm", moved(), objective="40x")
    assert caught.value.reason == "CALIBRATION_FOREIGN"
    assert stored(service).load("firm").digest == before


def test_one_client_at_a_time_measures_a_calibration_and_an_idle_one_keeps_no_other_waiting(
    channel: grpc.Channel, client: Client
) -> None:
    release = threading.Event()

    def requests() -> object:
        optics = pb.Optics(calibration_id="slow")
        kind = pb.CALIBRATION_KIND_FLAT_FIELD
        yield pb.CalibrateRequest(start=pb.CalibrateStart(kind=kind, optics=optics))
        release.wait(30)

    stub = rpc.CalibrationServiceStub(channel)
    call = stub.Calibrate.future(requests())
    try:
        reasons = set()
        # The first call's start message may still be on its way, or meet one of these.
        for _ in range(50):
            if call.done():
                call = stub.Calibrate.future(requests())
                time.sleep(0.2)
            try:
                client.calibrate("white-balance", "slow", glass(1))
            except RemoteError as error:
                reasons.add(error.reason)
                break
            time.sleep(0.05)
        assert reasons == {"CALIBRATION_BUSY"}
        client.calibrate("white-balance", "other", glass(1))
    finally:
        release.set()
    with pytest.raises(grpc.RpcError, match="no frames"):
        call.result(30)
    client.calibrate("white-balance", "slow", glass(1))


START = pb.CalibrateRequest(
    start=pb.CalibrateStart(
        kind=pb.CALIBRATION_KIND_FLAT_FIELD, optics=pb.Optics(calibration_id="broken")
    )
)
HEADER = pb.CalibrateRequest(header=encode_header(glass(1)[0], 1))
BROKEN = {
    "nothing": [],
    "no start": [HEADER],
    "a chunk before its header": [START, pb.CalibrateRequest(chunk=pb.FieldChunk(data=b"x"))],
    "a header within a frame": [START, HEADER, HEADER],
    "an end within a frame": [START, HEADER],
    "a second start": [START, START],
}


@pytest.mark.parametrize("messages", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_is_refused(
    channel: grpc.Channel, messages: list[pb.CalibrateRequest]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.CalibrationServiceStub(channel).Calibrate(iter(messages), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())[REASON_KEY] == "PROTOCOL_VIOLATION"


def test_a_field_of_another_size_is_an_error_of_that_field(
    client: Client, channel: grpc.Channel
) -> None:
    calibrated(client, "sized")
    session = open_session(channel, optics=pb.Optics(calibration_id="sized"))
    stream = WireStream(channel, session.session_id)
    stream.send(Frame(np.full((100, 120, 3), 90, np.uint8), 0.0, 0.0), 1)
    answered = stream.result()
    assert answered.error.reason == "CALIBRATION_FRAME_SIZE"
    assert not answered.durable
    stream.end()
