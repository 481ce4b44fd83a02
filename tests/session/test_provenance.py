"""A session whose extractor changes between two fields: its record says which made which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cpu_runner import cpu_runner, engine_in_place
from painted_field import field, painted

from edge_mil.bundle import open_bundle
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionSettings
from edge_mil.store import SessionFile, SessionReader
from edge_mil.testing.backend import BreakingExecutor
from edge_mil.types import Frame

DEMO = Path(__file__).parents[2] / "edge_mil" / "demo" / "bundle"
BOUND = 0.02
SIDE = 256


@pytest.fixture
def model() -> Iterator[Model]:
    made = load_model(open_bundle(DEMO), threads=1)
    yield made
    made.close()


def fields() -> list[Frame]:
    """Return four fields of two by two cells each, side by side."""
    slide = painted(4 * SIDE, SIDE)
    return [field(slide, SIDE * at, 0, SIDE, SIDE) for at in range(4)]


def session(model: Model, path: Path) -> Session:
    return Session(model, settings=SessionSettings(mpp=0.5), store=SessionFile(path))


def events(path: Path) -> list[dict[str, object]]:
    found = SessionReader(path).events()
    return [json.loads(body) for _, kind, body in found if kind == "extractor"]


def test_a_change_between_two_fields_is_recorded_and_the_score_stays_within_the_bound(
    model: Model, tmp_path: Path
) -> None:
    with session(model, tmp_path / "whole.db") as whole:
        wanted = [whole.add(frame) for frame in fields()]
        score = whole.score()
    assert model.extractor is not None
    with session(model, tmp_path / "s.db") as changing:
        found = [changing.add(frame) for frame in fields()[:2]]
        model.extractor.switch(cpu_runner(model.bundle, "int8"))
        found += [changing.add(frame) for frame in fields()[2:]]
        changed = changing.score()
        assert changing.precisions == "fp32,int8"
    assert [r.verdict for r in found] == [r.verdict for r in wanted]
    assert [r.cells_added for r in found] == [r.cells_added for r in wanted]
    assert score is not None
    assert changed is not None
    moved = np.abs(np.subtract(score.probabilities, changed.probabilities)).max()
    assert 0 < moved <= BOUND
    (event,) = events(tmp_path / "s.db")
    assert event["sequence"] == 3
    assert str(event["from"]).startswith("fp32, ")
    assert str(event["to"]).startswith("int8, ")
    assert events(tmp_path / "whole.db") == []


def test_an_accelerator_lost_in_the_middle_of_a_slide_costs_no_field(
    model: Model, tmp_path: Path
) -> None:
    with session(model, tmp_path / "whole.db") as whole:
        wanted = [whole.add(frame) for frame in fields()]
    assert model.extractor is not None
    int8 = cpu_runner(model.bundle, "int8")
    # It is lost at the third field.
    executor = BreakingExecutor(int8.network, 32, batches=2)
    model.extractor.switch(engine_in_place(executor, "int8"))
    with session(model, tmp_path / "s.db") as losing:
        found = [losing.add(frame) for frame in fields()]
        score = losing.score()
    assert [r.verdict for r in found] == [r.verdict for r in wanted]
    assert [r.cells_added for r in found] == [r.cells_added for r in wanted]
    assert score is not None
    assert wanted[-1].score is not None
    moved = np.abs(np.subtract(score.probabilities, wanted[-1].score.probabilities)).max()
    assert moved <= BOUND
    (event,) = events(tmp_path / "s.db")
    assert (event["sequence"], event["from"]) == (3, "int8, an engine")


def test_a_session_goes_on_in_another_precision_and_its_score_is_the_same_to_the_bit(
    model: Model, tmp_path: Path
) -> None:
    frames = fields()
    with session(model, tmp_path / "s.db") as first:
        for frame in frames[:2]:
            first.add(frame)
        before = first.score()
    int8 = load_model(open_bundle(DEMO), precision="int8", threads=1)
    with session(int8, tmp_path / "s.db") as again:
        assert again.score() == before
        assert again.precisions == "fp32"
        again.add(frames[2])
        assert again.precisions == "fp32,int8"
    with session(int8, tmp_path / "s.db") as third:
        third.add(frames[3])
        assert third.precisions == "fp32,int8"
    int8.close()
    assert [event["sequence"] for event in events(tmp_path / "s.db")] == [3]
