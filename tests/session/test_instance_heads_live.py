"""DSMIL, DTFD and a top-instance head in a live session: the score of the cells held."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from live_heads import COLUMNS, GRID, ROWS, SLIDE, cells, exported, loaded
from painted_field import MPP, field

from edge_mil.pipeline.instance_order import grid_order
from edge_mil.session import Session

DTFD = {"groups": "3", "instances": "6"}
HEADS: dict[str, dict[str, str]] = {
    "dsmil": {},
    "mil_fc": {},
    "dtfd": DTFD | {"distill": "afs"},
    "dtfd maxmins": DTFD | {"distill": "maxmins"},
}


@pytest.mark.parametrize("name", HEADS)
def test_any_order_of_fields_and_a_removal_end_on_the_score_of_the_cells(
    name: str, tmp_path: Path
) -> None:
    model = loaded(exported(name.split()[0], HEADS[name], tmp_path), tmp_path)
    places = grid_order([(c, r) for r in range(ROWS) for c in range(COLUMNS)])
    batch = model.attend(model.extract(cells()), places)
    aggregator = model.aggregator
    want = aggregator.score(aggregator.update(aggregator.initial_state(), batch))
    for seed in range(2):
        with Session(model, MPP) as session:
            for x, y in random.Random(seed).sample(GRID, len(GRID)):
                session.add(field(SLIDE, x, y))
            got = session.score()
            assert got is not None
            assert got.instances == want.instances
            assert got.logits == pytest.approx(want.logits, abs=1e-4)
            session.fields()
            session.remove(len(GRID), "test")
            left = session.score()
            assert left is not None
            assert left.instances < want.instances
    model.close()
