"""Exported whole-bag heads in a live session: the score of the places held, in canonical order."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from live_heads import COLUMNS, GRID, ROWS, SLIDE, cells, exported, loaded, torch
from painted_field import MPP, field

from edge_mil.session import Session

HEADS = {
    "transmil": {"nystrom": "0.0.9"},
    "mhim_transmil": {"activation": "relu"},
    "mambamil": {"activation": "gelu", "scan": "sr", "rate": "10"},
    "rrtmil": {
        "activation": "relu",
        "attention_activation": "relu",
        "region_num": "4",
        "all_shortcut": "true",
    },
    "otsurv": {"survival": "nll"},
}


@pytest.mark.parametrize("name", HEADS)
def test_any_order_of_fields_ends_on_the_score_of_the_slide(name: str, tmp_path: Path) -> None:
    head = exported(name, HEADS[name], tmp_path)
    model = loaded(head, tmp_path)
    scores = []
    for seed in range(2):
        with Session(model, MPP) as session:
            for x, y in random.Random(seed).sample(GRID, len(GRID)):
                session.add(field(SLIDE, x, y))
            scores.append(session.score())
    with torch.no_grad():
        want = head.module(torch.from_numpy(model.extract(cells()))).numpy()
    model.close()
    assert scores[0] is not None
    assert scores[0].instances == ROWS * COLUMNS
    assert scores[1] == scores[0]
    assert np.abs(np.asarray(scores[0].logits) - want).max() <= 1e-4 * max(1, np.abs(want).max())
