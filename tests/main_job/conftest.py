"""Real weights, exported once, for the tests of the whole way through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import real_bundle
from real_bundle import WIDTH, checkpoint, export


@pytest.fixture(scope="session")
def tile_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real extractor with a CLAM-SB head, tiles of 128 px at 0.5 um/px."""
    return real_bundle.tile_bundle(tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="session")
def field_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real extractor with a gated attention head, whole fields at 224 px and 0.1 um/px."""
    folder = tmp_path_factory.mktemp("fields")
    layers = {
        "dimreduction.fc1": (64, WIDTH),
        "attention.attention_V.0": (128, 64),
        "attention.attention_U.0": (128, 64),
        "attention.attention_weights": (1, 128),
        "classifier.fc": (2, 64),
    }
    head = checkpoint(layers, folder / "gated.pt", no_bias=("dimreduction.fc1",))
    options = ["--instances", "field", "--tile-px", "224", "--mpp", "0.1"]
    return export(head, folder / "bundle", *options)


@pytest.fixture
def edge_mil(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run an `edge-mil` command that prints JSON, and return it."""
    from edge_mil.cli import main

    def run(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run
