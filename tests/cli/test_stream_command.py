"""`edge-mil stream` against a real service, on the real slide and the real fields."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from painted_field import field, painted
from running_service import RunningService
from shared_data import shared
from small_bundle import write_small_bundle
from terminal_screen import ESCAPE, in_a_terminal

import edge_mil
from edge_mil.cli import main

Run = Callable[..., dict[str, Any]]

SLIDE = "data/slides/cmu1_small_region.svs"
FIELDS = "data/blood_disease_fov"
SOME_FIELDS = 12


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    grid = write_small_bundle(folder / "grid", name="grid", tile_px=128).path
    field = write_small_bundle(
        folder / "field", name="field", instances="field", tile_px=224, mpp=0.1
    ).path
    running = RunningService(grid, folder, "", "--bundle", str(field))
    with edge_mil.Client(running.address) as client:
        while any(model.state != "READY" for model in client.models()):
            time.sleep(0.05)
    yield running
    assert running.stop() == 0


@pytest.fixture
def stream(service: RunningService, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(source: Path, *words: str, bundle: str = "grid") -> dict[str, Any]:
        more = [] if "--session" in words else ["--bundle", bundle]
        code = main(["stream", str(source), "--server", service.address, "--json", *more, *words])
        assert code == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="module")
def few_fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen of the real fields, large and small ones."""
    images = sorted(p for p in shared(FIELDS).rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    folder = tmp_path_factory.mktemp("fields")
    by_size = sorted(images, key=lambda path: path.stat().st_size)
    for path in by_size[: SOME_FIELDS // 2] + by_size[-SOME_FIELDS // 2 :]:
        shutil.copy(path, folder / path.name)
    return folder


WALKS = {
    "overlap": ["--overlap", "0.1"],
    "no overlap": ["--overlap", "0"],
    "random": ["--path", "random", "--seed", "5"],
    "twice": ["--passes", "2"],
    "hovering": ["--path", "hover", "--frames", "40"],
    "small fields": ["--fov", "640x480"],
}


@pytest.mark.shared
@pytest.mark.parametrize("words", WALKS.values(), ids=WALKS.keys())
def test_every_walk_over_the_slide_ends_where_the_whole_slide_does(
    stream: Run, service: RunningService, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    slide = shared(SLIDE)
    assert main(["slide", str(service.bundle), str(slide), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    found = stream(slide, *words)
    assert found["instances"] == expected["instances"] == 191
    assert found["coverage"] == 1.0
    assert found["bundle"] == expected["bundle"]
    scale = max(1.0, *map(abs, expected["score"]["logits"]))
    assert found["score"]["logits"] == pytest.approx(expected["score"]["logits"], abs=1e-4 * scale)
    assert set(found["fields"]) <= {"ACCEPTED", "DUPLICATE", "BLANK"}


@pytest.mark.shared
def test_hovering_is_counted_once(stream: Run) -> None:
    found = stream(shared(SLIDE), "--path", "hover", "--frames", "40")
    assert found["fields"]["DUPLICATE"] >= 39


@pytest.mark.shared
def test_a_session_goes_on_where_it_ended(stream: Run, service: RunningService) -> None:
    slide = shared(SLIDE)
    whole = stream(slide)
    with edge_mil.Client(service.address) as client:
        mpp = client.resume(whole["session"]).opened.mpp
        session = client.open_session("grid", mpp=mpp)
    found = stream(slide, "--session", session.session_id)
    assert found["session"] == session.session_id
    assert found["score"] == whole["score"]


@pytest.mark.shared
def test_independent_fields_are_the_same_bag_in_any_order(stream: Run, few_fields: Path) -> None:
    words = ["--independent", "--mpp", "0.1"]
    first = stream(few_fields, *words, bundle="field")
    assert first["instances"] + first["fields"].get("BLANK", 0) == SOME_FIELDS
    for order in (["--path", "random", "--seed", "3"], ["--passes", "2"]):
        found = stream(few_fields, *words, *order, bundle="field")
        assert found["instances"] == first["instances"]
        assert found["score"]["logits"] == pytest.approx(first["score"]["logits"], abs=1e-4)


@pytest.mark.shared
def test_images_without_a_pixel_size_are_refused(
    few_fields: Path, service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["stream", str(few_fields), "--server", service.address, "--independent"]
    assert main([*words, "--bundle", "field"]) == 2
    assert "--mpp" in capsys.readouterr().err


@pytest.mark.shared
def test_people_get_a_table_that_says_research_use(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["stream", str(shared(SLIDE)), "--server", service.address, "--bundle", "grid"]
    assert main([*words, "--frames", "3"]) == 0
    printed = capsys.readouterr().out
    assert "Research use only" in printed
    assert "3 ACCEPTED" in printed


@pytest.fixture
def painted_fields(tmp_path: Path) -> Path:
    """Four fields side by side, with their positions in the names."""
    slide = painted(512, 384)
    for number, (x, y) in enumerate([(0, 0), (256, 0), (0, 192), (256, 192)]):
        view = field(slide, x, y, 256, 192)
        name = f"f{number}_x{view.x_um:g}_y{view.y_um:g}.png"
        cv2.imwrite(str(tmp_path / name), cv2.cvtColor(view.pixels, cv2.COLOR_RGB2BGR))
    return tmp_path


PROGRAM = "import sys; from edge_mil.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_terminal_sees_the_progress_within_80_columns(
    service: RunningService, painted_fields: Path
) -> None:
    words = ["stream", str(painted_fields), "--mpp", "0.5", "--server", service.address]
    more = ["--bundle", "grid", "--fps", "4"]
    shown = in_a_terminal(PROGRAM, *words, *more, output="stderr")
    lines = ESCAPE.sub("", shown).replace("\r", "\n").splitlines()
    assert any(re.search(r"\d fields, .*coverage \d+%", line) for line in lines)
    assert max(map(len, lines)) <= 80
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor was not given back"


def test_a_pipe_sees_no_progress(
    service: RunningService, painted_fields: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["stream", str(painted_fields), "--mpp", "0.5", "--server", service.address]
    assert main([*words, "--bundle", "grid"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(r"edge-mil stream: session \w{26}\n", said.err)
    assert "\x1b" not in said.out


def test_a_bundle_that_the_service_lacks_is_one_sentence(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a_x1_y1.png"), np.zeros((64, 64, 3), np.uint8))
    words = ["stream", str(tmp_path), "--mpp", "0.5", "--server", service.address]
    assert main([*words, "--bundle", "other"]) == 2
    assert "it has grid, field" in capsys.readouterr().err
    assert main(words) == 2
    assert "name one with --bundle" in capsys.readouterr().err


def test_a_microscope_that_errs_is_calibrated_and_its_camera_told(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    slide, faults = shared(SLIDE), ["--vignette", "0.3", "--noise", "2", "--rotation", "4"]
    words = ["stream", str(slide), "--server", service.address, "--bundle", "grid", "--json"]
    assert main([*words, "--jitter", "2", "--defocus", "0.2", "--dwell", "3", *faults]) == 0
    said = capsys.readouterr()
    assert "the session runs under calibration virtual-1024x768-" in said.err
    found = json.loads(said.out)
    with edge_mil.Client(service.address) as client:
        name = client.resume(found["session"]).opened.calibration
        (calibration,) = [one for one in client.calibrations() if one.name == name]
    assert calibration.figures["noise_levels"] == pytest.approx(2.0, rel=0.1)
    assert calibration.figures["flat_field_depth"] == pytest.approx(0.3, abs=0.02)
    assert 185 <= found["instances"] <= 197


def test_without_a_stage_fields_are_found_by_their_pictures(stream: Run) -> None:
    found = stream(
        shared(SLIDE), "--no-stage", "--path", "hand", "--frames", "8", "--fov", "640x480"
    )
    assert found["fields"]["ACCEPTED"] >= 4
    assert found["instances"] > 0


def test_a_folder_has_no_faults(few_fields: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", str(few_fields), "--mpp", "0.1", "--noise", "3"]) == 2
    assert "are for slides" in capsys.readouterr().err
