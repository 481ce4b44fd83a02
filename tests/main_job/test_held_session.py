"""A wrong stage and another slide, streamed to a real service: held, named, mended, released."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_service import RunningService
from small_bundle import write_small_bundle
from textured_slide import textured_slide
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import open_camera, parse_stage_faults
from edge_mil.cli import main
from edge_mil.client import Client
from edge_mil.types import CheckState, Verdict

MPP = 0.5
WIDTH, HEIGHT = 1000, 800
OPTIONS = ("--fov", "320x240")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("held")
    write_small_bundle(made / "bundle", mpp=MPP)
    for name, seed in (("slide", 0), ("other", 5)):
        write_tiled_tiff(made / f"{name}.tiff", textured_slide(WIDTH, HEIGHT, seed), mpp=MPP)
    return made


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[RunningService]:
    running = RunningService(folder / "bundle", folder)
    yield running
    running.stop()


def edge_mil(*words: object) -> tuple[int, str, str]:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main([*map(str, words)])
    return code, out.getvalue(), errors.getvalue()


def stream(service: RunningService, folder: Path, *words: object) -> dict[str, Any]:
    slide = folder / "slide.tiff"
    code, out, errors = edge_mil(
        "stream", slide, "--server", service.address, *OPTIONS, *words, "--json"
    )
    assert code == 0, errors
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_flipped_stage_is_held_counted_and_shown(service: RunningService, folder: Path) -> None:
    found = stream(service, folder, "--fault", "x-flipped")
    assert found["geometry"]["cause"] == "x-flipped"
    assert found["geometry"]["held"]
    assert found["fields"]["UNLOCATED"] >= 10
    code, out, _ = edge_mil("session", "show", found["session"], "--state", folder / "state")
    assert code == 0
    assert "X is flipped" in out
    code, out, _ = edge_mil(
        "session", "show", found["session"], "--state", folder / "state", "--json"
    )
    shown = json.loads(out)
    assert shown["geometry"]["state"] == "contradicted"
    assert shown["suspects"] == list(range(1, shown["geometry"]["since"]))
    page = folder / "report.html"
    report = ["session", "report", found["session"], "--bundle", folder / "bundle"]
    assert edge_mil(*report, "--state", folder / "state", "--out", page)[0] == 0
    assert "X is flipped" in page.read_text(encoding="utf-8")


def test_without_overlap_a_few_fields_at_the_start_prove_the_stage(
    service: RunningService, folder: Path
) -> None:
    clean = stream(service, folder, "--overlap", "0")
    assert clean["geometry"]["state"] == "agrees"
    blind = stream(service, folder, "--overlap", "0", "--no-check-geometry")
    assert blind["score"]["logits"] == pytest.approx(clean["score"]["logits"], abs=1e-5)
    assert stream(service, folder, "--overlap", "0", "--fault", "y-flipped")["geometry"]["held"]


def test_a_camera_that_is_a_little_turned_is_mended_by_calibrate_stage(
    service: RunningService, folder: Path
) -> None:
    wrong = stream(service, folder, "--fault", "turned=1.5", "--overlap", "0.3")
    assert (wrong["geometry"]["cause"], wrong["geometry"]["held"]) == ("rotation", True)
    assert "calibrate stage" in wrong["geometry"]["sentence"]
    assert wrong["geometry"]["rotation_deg"] == pytest.approx(1.5, abs=0.2)
    state = ("--state", folder / "state")
    code, out, errors = edge_mil(
        "calibrate", "stage", wrong["session"], "--name", "turned", *state, "--json"
    )
    assert code == 0, errors
    assert json.loads(out)["figures"]["stage_rotation_deg"] == pytest.approx(1.5, abs=0.2)
    words = ("--fault", "turned=1.5", "--overlap", "0.3", "--calibration", "turned")
    mended = stream(service, folder, *words)
    assert mended["geometry"]["state"] == "agrees"
    clean = stream(service, folder, "--overlap", "0.3")
    assert mended["score"]["probabilities"] == pytest.approx(
        clean["score"]["probabilities"], abs=0.02
    )


def test_what_no_affine_mends_is_refused_by_calibrate_stage(
    service: RunningService, folder: Path
) -> None:
    wrong = stream(service, folder, "--fault", "x-flipped")
    code, _, errors = edge_mil(
        "calibrate", "stage", wrong["session"], "--name", "no", "--state", folder / "state"
    )
    assert code == 2
    assert "calibrate pixel-size" in errors


def test_another_slide_is_held_until_the_first_lies_there_again(
    service: RunningService, folder: Path
) -> None:
    def frames(*words: str) -> list[Any]:
        camera = open_camera(
            str(folder / "slide.tiff"), fov=(320, 240), stage_faults=parse_stage_faults(words)
        )
        try:
            return list(camera.frames())
        finally:
            camera.close()

    clean = frames()
    half = len(clean) // 2
    exchanged = frames(f"slide={folder / 'other.tiff'}@{half + 1}")
    with Client(service.address) as client:
        session = client.open_session(mpp=MPP)
        session.send_frames(exchanged)
        info = session.info()
        assert (info.slide.state, info.slide.cause) == (CheckState.CONTRADICTED, "other-slide")
        assert info.slide.held
        assert session.score().slide == "contradicted"
        refused = [field for field in session.fields() if field.verdict is Verdict.UNLOCATED]
        assert "another slide" in refused[-1].result.explanation
        words = ("session", "release", session.session_id, "--server", service.address)
        code, out, errors = edge_mil(*words, "--same-slide", "--reason", "cleaned", "--json")
        assert code == 0, errors
        assert json.loads(out)["slide"]["state"] == "unproven"
        session.send_frames(clean[half:])
        assert session.info().slide.state is CheckState.AGREES
        code, _, errors = edge_mil(*words, "--same-slide")
        assert code == 2
        assert "nothing to release" in errors
        report = session.close().report
    assert report["slide"]["state"] == "agrees"
    assert report["geometry"]["state"] == "agrees"
