"""Sessions that an earlier release stored open in this one, with the same score to the bit."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_mil.bundle import open_bundle
from edge_mil.pipeline import load_model
from edge_mil.session import Session, SessionFolder

pytest.importorskip("torch", reason="the fields are made by a module that also exports a head")

DATA = Path(__file__).resolve().parents[1] / "data"
STORED = sorted(path.parent for path in (DATA / "stored_sessions").glob("*/*/session.db"))


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_stored_sessions", DATA / "make_stored_sessions.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=STORED, ids=lambda path: f"{path.parent.name}-{path.name}")
def stored(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Session, dict[str, Any], str]]:
    expected = json.loads((request.param / "expected.json").read_text())
    session_id = expected["session"]
    target = tmp_path / "sessions" / session_id / "session.db"
    target.parent.mkdir(parents=True)
    shutil.copy(request.param / "session.db", target)
    model = load_model(open_bundle(request.param / "bundle.milb"))
    session = SessionFolder(tmp_path).open(session_id, lambda _: model)
    yield session, expected, request.param.name
    session.release()
    model.close()


def test_a_stored_session_has_the_same_score_and_answers_to_the_bit(
    stored: tuple[Session, dict[str, Any], str],
) -> None:
    session, expected, _ = stored
    assert maker().numbers(session) == expected["kept"]


def test_a_stored_session_goes_on_as_the_release_that_wrote_it_did(
    stored: tuple[Session, dict[str, Any], str],
) -> None:
    session, expected, case = stored
    _, _, frame, count, _ = maker().CASES[case]
    for step in range(count, count + 3):
        session.add(frame(step))
    found, then = maker().numbers(session), expected["gone_on"]
    assert [f["verdict"] for f in found["answers"]] == [f["verdict"] for f in then["answers"]]
    assert [f["cells"] for f in found["answers"]] == [f["cells"] for f in then["answers"]]
    # New features are made by the network of this machine, whose last bits are its own.
    values = [[float.fromhex(v) for v in result["logits"]] for result in (found, then)]
    np.testing.assert_allclose(*values, atol=1e-5)


def test_there_is_a_stored_session_of_every_kind() -> None:
    assert {path.name for path in STORED} >= set(maker().CASES)
