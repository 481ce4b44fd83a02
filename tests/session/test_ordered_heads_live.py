"""Exported whole-bag heads in a live session: the score of the places held, in canonical order."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import FEATURES, write_small_bundle

from edge_mil.bundle import write_bundle
from edge_mil.pipeline import Model
from edge_mil.session import Session

torch = pytest.importorskip("torch")
exporter = pytest.importorskip("edge_mil_export.aggregator")
safetensors = pytest.importorskip("safetensors.torch")

SLIDE = painted()
TILE = 64
GRID = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]
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


def exported(name: str, folder: Path) -> Any:
    from edge_mil_export.architectures import mambamil_sr, otsurv, rrtmil, transmil

    builds = (transmil.TransMil, transmil.MhimTransMil, mambamil_sr.MambaMil, rrtmil.RrtMil)
    heads = dict(zip(HEADS, (*builds, otsurv.OtSurv), strict=True))
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    state = heads[name].fresh(FEATURES, 2)
    safetensors.save_file({key: value.contiguous() for key, value in state.items()}, path)
    return exporter.export_aggregator(path, options=HEADS[name])


def loaded(head: Any, folder: Path) -> Model:
    plain = write_small_bundle(folder / "plain")
    files = {"extractor.onnx": plain.read("extractor.onnx"), **head.graphs}
    manifest = dataclasses.replace(plain.manifest, aggregator=head.spec, task=head.task, files={})
    return Model.load(write_bundle(manifest, files, folder / "whole"))


@pytest.mark.parametrize("name", HEADS)
def test_any_order_of_fields_ends_on_the_score_of_the_slide(name: str, tmp_path: Path) -> None:
    head = exported(name, tmp_path)
    model = loaded(head, tmp_path)
    scores = []
    for seed in range(2):
        with Session(model, MPP) as session:
            for x, y in random.Random(seed).sample(GRID, len(GRID)):
                session.add(field(SLIDE, x, y))
            scores.append(session.score())
    rows, columns = SLIDE.shape[0] // TILE, SLIDE.shape[1] // TILE
    tiles = SLIDE[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    cells = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(-1, TILE, TILE, 3)
    with torch.no_grad():
        want = head.module(torch.from_numpy(model.extract(cells))).numpy()
    model.close()
    assert scores[0] is not None
    assert scores[0].instances == rows * columns
    assert scores[1] == scores[0]
    assert np.abs(np.asarray(scores[0].logits) - want).max() <= 1e-4 * max(1, np.abs(want).max())
