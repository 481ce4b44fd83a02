"""Real blood fields as instances: any order, repeats, two sizes, always the score of the bag."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from running_service import RunningService
from shared_data import shared

from edge_mil.cli import main
from edge_mil.client import Client
from edge_mil.types import Frame

pytestmark = [pytest.mark.shared, pytest.mark.slow]

Run = Callable[..., dict[str, Any]]
MPP = "0.1"
"""The files name no pixel size: a stand-in."""


@pytest.fixture(scope="module")
def fields() -> Path:
    return shared("data/blood_disease_fov")


@pytest.fixture(scope="module")
def service(
    field_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    running = RunningService(field_bundle, tmp_path_factory.mktemp("service"))
    yield running
    assert running.stop() == 0


def pictures(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(folder.rglob("*.jpg")):
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        found[path.relative_to(folder).as_posix()] = pixels
    return found


@pytest.fixture(scope="module")
def features(fields: Path, field_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features by ONNX Runtime and OpenCV alone: nothing of edge_mil is asked."""
    network = onnxruntime.InferenceSession(
        (field_bundle / "extractor.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    tiles = [
        cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
        for pixels in pictures(fields).values()
    ]
    path = tmp_path_factory.mktemp("features") / "fields.npz"
    np.savez(path, features=network.run(None, {"tiles": np.stack(tiles)})[0])
    return path


def close_to(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    assert found["instances"] == wanted["instances"]
    return np.allclose(found["score"]["logits"], wanted["score"]["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [[], ["--path", "random", "--seed", "3"], ["--passes", "2"]])
def test_independent_fields_end_on_the_score_of_their_features(
    options: list[str],
    edge_mil: Run,
    fields: Path,
    field_bundle: Path,
    features: Path,
    service: RunningService,
) -> None:
    wanted = edge_mil("score", field_bundle, features)
    assert wanted["instances"] == 30
    more = ["--server", service.address, "--independent", "--mpp", MPP, *options]
    live = edge_mil("stream", fields, *more)
    assert close_to(live, wanted)


def test_the_same_place_under_new_numbers_is_one_instance(
    edge_mil: Run, fields: Path, field_bundle: Path, features: Path, service: RunningService
) -> None:
    wanted = edge_mil("score", field_bundle, features)
    frames = [Frame(pixels, location_id=name) for name, pixels in pictures(fields).items()]
    random_ = random.Random(1)
    shots = random_.sample(frames + random_.sample(frames, 12), len(frames) + 12)
    with Client(service.address) as client:
        session = client.open_session(mpp=0.1, independent=True)
        summary = session.send_frames(iter(shots))
        live = session.score().score
        session.close()
    assert summary.verdicts["DUPLICATE"] == 12
    assert live is not None
    assert live.instances == 30
    np.testing.assert_allclose(live.logits, wanted["score"]["logits"], rtol=0, atol=1e-4)


def test_without_a_pixel_size_the_fields_are_refused(
    fields: Path, service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["stream", str(fields), "--server", service.address, "--independent"])
    said = capsys.readouterr()
    assert code == 2
    assert "--mpp" in said.err
    assert said.err.count("\n") == 1


def test_images_of_unknown_places_are_refused(
    fields: Path, service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["stream", str(fields), "--server", service.address, "--mpp", MPP])
    said = capsys.readouterr()
    assert code == 2
    assert "--independent" in said.err
    assert "positions.csv" in said.err


def test_a_truncated_image_is_said_and_the_session_can_go_on(
    edge_mil: Run,
    fields: Path,
    field_bundle: Path,
    service: RunningService,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "fields"
    shutil.copytree(fields / "thalassemia", folder)
    whole = sorted(folder.glob("*.jpg"))[2]
    data = whole.read_bytes()
    whole.chmod(0o644)
    whole.write_bytes(data[: len(data) // 3])
    server = ["--server", service.address]
    code = main(["stream", str(folder), *server, "--independent", "--mpp", MPP])
    said = capsys.readouterr().err
    assert code == 2
    assert whole.name in said
    assert "Traceback" not in said
    session = next(word for word in said.split() if len(word.strip(".:,;")) == 26).strip(".:,;")
    whole.write_bytes(data)
    live = edge_mil("stream", folder, *server, "--session", session, "--independent", "--mpp", MPP)
    assert live["session"] == session
    assert live["instances"] == 6
