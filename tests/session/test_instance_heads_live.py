"""DSMIL, DTFD and a top-instance head in a live session: the score of the cells held."""

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
from edge_mil.pipeline.places import grid_places
from edge_mil.session import Session

torch = pytest.importorskip("torch")
exporter = pytest.importorskip("edge_mil_export.aggregator")
registry = pytest.importorskip("edge_mil_export.architectures.registry")
safetensors = pytest.importorskip("safetensors.torch")

SLIDE = painted()
TILE = 64
GRID = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]
DTFD = {"groups": "3", "instances": "6"}
HEADS: dict[str, dict[str, str]] = {
    "dsmil": {},
    "mil_fc": {},
    "dtfd": DTFD | {"distill": "afs"},
    "dtfd maxmins": DTFD | {"distill": "maxmins"},
}


def exported(name: str, folder: Path) -> Any:
    torch.manual_seed(0)
    architecture = name.split()[0]
    chosen = next(a for a in registry._candidates() if a.name == architecture)
    path = folder / f"{architecture}.safetensors"
    state = chosen.build.fresh(FEATURES, 2)
    safetensors.save_file({key: value.contiguous() for key, value in state.items()}, path)
    return exporter.export_aggregator(path, options=HEADS[name])


def loaded(head: Any, folder: Path) -> Model:
    plain = write_small_bundle(folder / "plain")
    files = {"extractor.onnx": plain.read("extractor.onnx"), **head.graphs}
    manifest = dataclasses.replace(plain.manifest, aggregator=head.spec, task=head.task, files={})
    return Model.load(write_bundle(manifest, files, folder / "whole"))


@pytest.mark.parametrize("name", HEADS)
def test_any_order_of_fields_and_a_removal_end_on_the_score_of_the_cells(
    name: str, tmp_path: Path
) -> None:
    model = loaded(exported(name, tmp_path), tmp_path)
    rows, columns = SLIDE.shape[0] // TILE, SLIDE.shape[1] // TILE
    tiles = SLIDE[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    cells = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(-1, TILE, TILE, 3)
    places = grid_places([(c, r) for r in range(rows) for c in range(columns)])
    batch = model.attend(model.extract(cells), places)
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
