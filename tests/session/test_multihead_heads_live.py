"""Exported multi-head, Hopfield, merged-token, ILRA and WiKG heads in a live session."""

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
registry = pytest.importorskip("edge_mil_export.architectures.registry")
safetensors = pytest.importorskip("safetensors.torch")

SLIDE = painted()
TILE = 64
GRID = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]
MERGED = {"activation": "relu", "attention_activation": "gelu", "merge_test": "true"}
HEADS = {
    "acmil_mha": ("acmil_mha", {}),
    "hopfield": ("hopfield", {"heads": "4"}),
    "hopfield 3 steps": ("hopfield", {"heads": "4", "update_steps_max": "3"}),
    "mhim_abmil merged": ("mhim_abmil", MERGED),
    "ilra": ("ilra", {"heads": "8"}),
    "wikg": ("wikg", {"topk": "4"}),
}


def exported(name: str, folder: Path) -> Any:
    architecture, options = HEADS[name]
    torch.manual_seed(0)
    chosen = next(a for a in registry._candidates() if a.name == architecture)
    state = chosen.build.fresh(FEATURES, 2)
    path = folder / "head.safetensors"
    safetensors.save_file({key: value.contiguous() for key, value in state.items()}, path)
    return exporter.export_aggregator(path, arch=architecture, options=options)


def loaded(head: Any, folder: Path) -> Model:
    plain = write_small_bundle(folder / "plain")
    files = {"extractor.onnx": plain.read("extractor.onnx"), **head.graphs}
    manifest = dataclasses.replace(plain.manifest, aggregator=head.spec, task=head.task, files={})
    return Model.load(write_bundle(manifest, files, folder / "whole"))


@pytest.mark.parametrize("name", HEADS)
def test_any_order_of_fields_ends_on_the_score_of_the_slide(name: str, tmp_path: Path) -> None:
    head = exported(name, tmp_path)
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
            assert not mergeable or np.isfinite(session.heat_map().values).any()
            assert len(session.fields()) == len(GRID)
    rows, columns = SLIDE.shape[0] // TILE, SLIDE.shape[1] // TILE
    tiles = SLIDE[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    cells = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(-1, TILE, TILE, 3)
    with torch.no_grad():
        want = head.module(torch.from_numpy(model.extract(cells))).numpy()
    model.close()
    for numbers in found:
        assert np.abs(np.asarray(numbers) - want).max() <= 1e-4 * max(1, np.abs(want).max())
