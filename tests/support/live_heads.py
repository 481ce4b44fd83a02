"""Heads with fresh weights for a live session: exported, behind a small extractor; a slide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from painted_field import painted
from small_bundle import FEATURES, write_small_bundle

from edge_mil.bundle import write_bundle
from edge_mil.pipeline import Model, load_model
from edge_mil.types import UInt8Array

torch = pytest.importorskip("torch")
exporter = pytest.importorskip("edge_mil_export.onnx_export.exported_aggregator")
registry = pytest.importorskip("edge_mil_export.architectures.registry")
safetensors = pytest.importorskip("safetensors.torch")

SLIDE = painted()
TILE = 64
GRID = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]
"""Top left corners of fields that cover the slide."""
ROWS, COLUMNS = SLIDE.shape[0] // TILE, SLIDE.shape[1] // TILE


def exported(
    architecture: str, options: Mapping[str, str], folder: Path, *, named: bool = False
) -> Any:
    """Export a head with fresh weights; detected from its keys unless it is `named`."""
    torch.manual_seed(0)
    chosen = registry.named_architecture(architecture)
    path = folder / f"{architecture}.safetensors"
    state = chosen.build.fresh(FEATURES, 2)
    safetensors.save_file({key: value.contiguous() for key, value in state.items()}, path)
    arch = {"arch": architecture} if named else {}
    return exporter.export_aggregator(path, options=options, **arch)


def loaded(head: Any, folder: Path) -> Model:
    """Load an exported head behind a small extractor."""
    plain = write_small_bundle(folder / "plain")
    files = {"extractor.onnx": plain.read("extractor.onnx"), **head.graphs}
    manifest = structs.replace(plain.manifest, aggregator=head.spec, task=head.task, files={})
    return load_model(write_bundle(manifest, files, folder / "whole"))


def cells() -> UInt8Array:
    """Return the slide's cells, row by row: uint8 (n, TILE, TILE, 3)."""
    tiles = SLIDE[: ROWS * TILE, : COLUMNS * TILE].reshape(ROWS, TILE, COLUMNS, TILE, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(-1, TILE, TILE, 3)
