from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.cli import main
from edge_mil.pipeline import load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame

SLIDE = painted()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def read_slide(state: Path, bundle: Path, **settings: object) -> Session:
    """Leave an open session with three fields under the state directory."""
    model = load_model(write_small_bundle(bundle))
    opened = SessionSettings(mpp=MPP, slide_label="A 17", **settings)  # type: ignore[arg-type]
    session = SessionFolder(state).create(model, opened)
    for x in (0, 150, 150):
        session.add(field(SLIDE, x, 0))
    return session


def test_no_session_is_said_and_no_mistake(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.mkdir()
    assert main(["session", "list", "--state", str(state)]) == 0
    assert capsys.readouterr().out == f"There is no session in {state}.\n"


def test_list_names_every_session(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = read_slide(state, tmp_path / "a")
    second = read_slide(state, tmp_path / "b")
    second.close()
    # The first one is still held by its "service": reading beside it must work.
    assert main(["session", "list", "--state", str(state), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["sessions"]
    assert {row["session"] for row in listed} == {first.session_id, second.session_id}
    assert {row["state"] for row in listed} == {"open", "closed"}
    assert main(["session", "list", "--state", str(state)]) == 0
    assert "A 17" in capsys.readouterr().out
    first.release()
    second.release()


def test_show_says_where_the_session_stands(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = read_slide(state, tmp_path / "b")
    status = session.status()
    words = ["session", "show", session.session_id, "--state", str(state)]
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert status.score is not None
    assert shown["score"] == status.score.as_json()
    assert shown["instances"] == status.instances
    assert shown["fields"] == {"ACCEPTED": 2, "DUPLICATE": 1}
    assert shown["current"] is True
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "2 ACCEPTED, 1 DUPLICATE" in printed
    assert "Research use only." in printed
    session.release()


def test_show_does_not_pass_off_the_score_before_a_removal_as_the_score(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = read_slide(state, tmp_path / "b")
    session.remove(2)
    session.release()
    words = ["session", "show", session.session_id, "--state", str(state)]
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["current"], shown["removed"]) == (False, 1)
    assert main(words) == 0
    assert "Fields were removed since" in capsys.readouterr().out


def test_exported_features_give_the_sessions_score_again(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = read_slide(state, tmp_path / "b")
    out = tmp_path / "out"
    words = ["session", "export", session.session_id, "--state", str(state), "--out", str(out)]
    assert main([*words, "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(name).name for name in files] == [
        "session.json",
        "fields.csv",
        "cells.csv",
        "features.npz",
        "thumbnails",
    ]
    saved = np.load(out / "features.npz", allow_pickle=False)
    model = session.model
    state_of_all = model.aggregator.update(
        model.aggregator.initial_state(), model.attend(saved["features"])
    )
    status = session.status()
    assert status.score is not None
    again = model.aggregator.score(state_of_all)
    assert again.instances == status.instances
    assert np.allclose(again.logits, status.score.logits, rtol=0, atol=1e-5)
    assert len(list((out / "thumbnails").glob("*.jpg"))) == 2
    session.release()


def test_exported_tables_have_positions_in_stage_um(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = read_slide(state, tmp_path / "b")
    session.release()
    out = tmp_path / "out"
    assert (
        main(["session", "export", session.session_id, "--state", str(state), "--out", str(out)])
        == 0
    )
    assert capsys.readouterr().out.startswith(str(out / "session.json"))
    with (out / "fields.csv").open(newline="") as file:
        fields = list(csv.DictReader(file))
    assert [row["verdict"] for row in fields] == ["ACCEPTED", "ACCEPTED", "DUPLICATE"]
    assert float(fields[1]["x_um"]) == (150 + 192 / 2) * MPP
    assert 0 <= float(fields[1]["prob_positive"]) <= 1
    with (out / "cells.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    # A cell of the small bundle is 64 px at 0.5 um/px.
    assert {(c["line"], c["y_um"]) for c in cells} == {("0", "0.0"), ("1", "32.0")}
    assert all(float(c["x_um"]) == int(c["column"]) * 32.0 for c in cells)
    positions = np.load(out / "features.npz", allow_pickle=False)["positions"]
    assert positions.tolist() == [[int(c["column"]), int(c["line"])] for c in cells]


def test_independent_fields_are_exported_in_the_order_of_their_places(
    state: Path, tmp_path: Path
) -> None:
    model = load_model(write_small_bundle(tmp_path / "b", instances="field"))
    session = SessionFolder(state).create(model, SessionSettings(mpp=MPP, independent=True))
    for place in ("c", "a", "b"):
        pixels = field(SLIDE, 40 * ord(place) % 400, 0).pixels
        session.add(Frame(pixels, location_id=place))
    session.release()
    out = tmp_path / "out"
    assert (
        main(["session", "export", session.session_id, "--state", str(state), "--out", str(out)])
        == 0
    )
    with (out / "cells.csv").open(newline="") as file:
        assert [row["place"] for row in csv.DictReader(file)] == ["place:a", "place:b", "place:c"]
    assert "positions" not in np.load(out / "features.npz", allow_pickle=False)


@pytest.mark.parametrize("name", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "../../etc", ""])
def test_a_session_that_does_not_exist_is_one_sentence(
    state: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir()
    assert main(["session", "show", name, "--state", str(state)]) == 2
    assert "There is no session" in capsys.readouterr().err


def test_a_state_directory_that_does_not_exist_is_one_sentence(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["session", "list", "--state", str(state)]) == 2
    assert "check --state" in capsys.readouterr().err


def report(session: Session, state: Path, tmp_path: Path, out: Path) -> int:
    words = ["session", "report", session.session_id, "--state", str(state), "--json"]
    return main([*words, "--bundle", str(tmp_path / "b"), "--out", str(out)])


def test_the_report_has_the_score_as_it_stands_after_a_removal(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = read_slide(state, tmp_path / "b")
    session.remove(2)
    status = session.status()
    out = tmp_path / "report.html"
    # The session is still held by its service: the report only reads.
    assert report(session, state, tmp_path, out) == 0
    written = json.loads(capsys.readouterr().out)
    assert status.score is not None
    assert written["score"] == status.score.as_json()
    assert written["coverage"] == status.coverage
    page = out.read_text(encoding="utf-8")
    assert "Research use only." in page
    assert page.count("data:image/jpeg;base64,") == 1  # the slide as far as it was seen
    session.release()


def test_the_report_of_independent_fields_has_no_map(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(write_small_bundle(tmp_path / "b", instances="field"))
    session = SessionFolder(state).create(model, SessionSettings(mpp=MPP, independent=True))
    for place in ("a", "b"):
        session.add(Frame(field(SLIDE, 40 * ord(place) % 400, 0).pixels, location_id=place))
    session.release()
    assert report(session, state, tmp_path, tmp_path / "report.html") == 0
    assert json.loads(capsys.readouterr().out)["score"] is not None


def test_a_report_needs_the_bundle_that_the_session_was_read_with(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = read_slide(state, tmp_path / "a")
    session.release()
    write_small_bundle(tmp_path / "b", seed=1)
    assert report(session, state, tmp_path, tmp_path / "report.html") == 2
    assert "The session was opened with bundle small" in capsys.readouterr().err


def test_a_report_of_a_session_without_fields_says_that_there_is_no_score(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(write_small_bundle(tmp_path / "b"))
    session = SessionFolder(state).create(model, SessionSettings(mpp=MPP))
    session.release()
    out = tmp_path / "report.html"
    assert report(session, state, tmp_path, out) == 0
    assert json.loads(capsys.readouterr().out)["score"] is None
    assert "no score yet" in out.read_text(encoding="utf-8")
