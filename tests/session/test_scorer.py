"""A head that sees the whole bag is scored beside the fields, in canonical order, and waited for.

The head is one of this test, so that its answer can be computed by hand and its run be held up.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from painted_field import MPP, field, painted
from small_bundle import VALUES, write_small_bundle

from edge_mil.aggregators import WholeBagAggregator
from edge_mil.aggregators.registry import BUILDERS
from edge_mil.bundle import open_bundle, write_bundle
from edge_mil.errors import EdgeMilError, SessionStateError
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Float32Array, Float64Array

SLIDE = painted()
GRID = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]


class RowWeights(WholeBagAggregator):
    """Logits that depend on the order of the bag: each row weighs as much as its number."""

    may_run = threading.Event()
    runs = 0

    def forward(self, values: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Count the run, wait until it may go on, and weigh the rows."""
        RowWeights.runs += 1
        assert self.may_run.wait(30)
        weights = np.arange(1, len(values) + 1, dtype=np.float64)
        pooled = weights @ values.astype(np.float64) / weights.sum()
        return pooled[:2], None


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    monkeypatch.setitem(BUILDERS, "row-weights", lambda p: RowWeights(p.value_dim, p.classifier))
    RowWeights.may_run.set()
    plain = write_small_bundle(tmp_path / "plain")
    manifest = plain.manifest
    head = structs.replace(
        manifest.aggregator,
        incremental="whole-bag",
        pooling="row-weights",
        order="grid",
        channels=0,
        graphs={"attend": "attend.onnx"},
    )
    files = {name: plain.read(name) for name in manifest.files if name != "classify.onnx"}
    changed = structs.replace(manifest, aggregator=head, files={})
    bundle = write_bundle(changed, files, tmp_path / "whole")
    loaded = load_model(open_bundle(bundle.path))
    yield loaded
    RowWeights.may_run.set()
    loaded.close()


def test_the_order_of_arrival_does_not_change_an_order_dependent_score(model: Model) -> None:
    scores = []
    for seed in range(3):
        with Session(model, MPP) as session:
            for x, y in random.Random(seed).sample(GRID, len(GRID)):
                session.add(field(SLIDE, x, y))
            scores.append(session.score())
    assert scores[0] is not None
    assert scores[0].instances == 70
    assert scores[1] == scores[0]
    assert scores[2] == scores[0]


def test_fields_are_answered_while_the_head_runs_and_say_what_the_score_covers(
    model: Model,
) -> None:
    with Session(model, MPP) as session:
        told = []
        session.on_score = told.append
        session.add(field(SLIDE, 0, 0))
        first, before = session.score(), RowWeights.runs
        RowWeights.may_run.clear()
        for number, (x, y) in enumerate(GRID[1:5], start=2):
            result = session.add(field(SLIDE, x, y))
            assert (result.sequence, result.as_of) == (number, 1)
            assert result.score == first
        assert session.status().as_of == 1
        RowWeights.may_run.set()
        last = session.close()
        assert last.as_of == 5
        assert last.score is not None
        assert first is not None
        assert last.score.instances > first.instances
        assert told[-1].as_of == 5
        # The run for field 2 was under way when the others came: they shared the next one.
        assert RowWeights.runs - before == 2


def test_a_restart_and_a_removal_end_on_the_same_score(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path / "state")
    session = folder.create(model, SessionSettings(mpp=MPP))
    for x, y in GRID:
        session.add(field(SLIDE, x, y))
    full = session.score()
    session.release()
    session = folder.open(session.session_id, lambda _: model)
    assert session.score() == full
    session.remove(3, "test")
    gone = session.status().score
    assert gone is not None
    assert full is not None
    assert gone.instances < full.instances
    for x, y in GRID:
        session.add(field(SLIDE, x, y))
    assert session.score() == full
    session.release()


def test_a_head_that_fails_is_an_error_for_who_waits_and_not_for_the_fields(model: Model) -> None:
    class Refuses(RowWeights):
        def forward(self, values: Float32Array) -> tuple[Float64Array, Float32Array | None]:
            """Fail as a head without enough memory does."""
            raise EdgeMilError("no memory for so large a bag")

    aggregator = model.aggregator
    assert isinstance(aggregator, RowWeights)
    model.aggregator = Refuses(VALUES, aggregator.classifier)
    with Session(model, MPP) as session:
        session.add(field(SLIDE, 0, 0))
        with pytest.raises(EdgeMilError, match="no memory"):
            session.score()
        assert session.status().score is None


def test_there_is_no_map_of_influence_for_such_a_head(model: Model) -> None:
    with Session(model, MPP) as session:
        session.add(field(SLIDE, 0, 0))
        assert session.top_fields(3) == []
        with pytest.raises(SessionStateError, match="whole-bag head"):
            session.influence_map()
