"""Exported multi-head, Hopfield, merged-token, ILRA and WiKG heads in a live session."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from live_heads import GRID, SLIDE, cells, exported, loaded, torch
from painted_field import MPP, field

from edge_mil.session import Session

MERGED = {"activation": "relu", "attention_activation": "gelu", "merge_test": "true"}
HEADS = {
    "acmil_mha": ("acmil_mha", {}),
    "hopfield": ("hopfield", {"heads": "4"}),
    "hopfield 3 steps": ("hopfield", {"heads": "4", "update_steps_max": "3"}),
    "mhim_abmil merged": ("mhim_abmil", MERGED),
    "ilra": ("ilra", {"heads": "8"}),
    "wikg": ("wikg", {"topk": "4"}),
}


@pytest.mark.parametrize("name", HEADS)
def test_any_order_of_fields_ends_on_the_score_of_the_slide(name: str, tmp_path: Path) -> None:
    architecture, options = HEADS[name]
    head = exported(architecture, options, tmp_path, named=True)
    model = loaded(head, tmp_path)
    found = []
    for seed in range(2):
        with Session(model, MPP) as session:
            for x, y in random.Random(seed).sample(GRID, len(GRID)):
                session.add(field(SLIDE, x, y))
            score = session.score()
            assert score is not None
            found.append(score.pooled or score.logits)
            mergeable = head.spec.incremental == "mergeable"
            assert bool(session.top_fields(3)) == mergeable
            assert not mergeable or np.isfinite(session.influence_map().values).any()
            assert len(session.fields()) == len(GRID)
    with torch.no_grad():
        want = head.module(torch.from_numpy(model.extract(cells()))).numpy()
    model.close()
    for numbers in found:
        assert np.abs(np.asarray(numbers) - want).max() <= 1e-4 * max(1, np.abs(want).max())
