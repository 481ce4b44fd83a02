"""Real weights, exported once, for the tests of the whole way through."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shared_data import shared

WEIGHTS = "data/extractor/efficientnet_lite0_imagenet_fp16.safetensors"
WIDTH = 1280


def linear(torch: Any, out: int, given: int, seed: int) -> tuple[Any, Any]:
    """Return seeded random weights and biases, scaled so that outputs stay spread."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, given, generator=generator) * 1.4 / given**0.5
    return weight, torch.randn(out, generator=generator) * 0.1


def checkpoint(
    layers: dict[str, tuple[int, int]], path: Path, no_bias: tuple[str, ...] = ()
) -> Path:
    """Write a torch state dict with the given layers."""
    import torch

    state = {}
    for seed, (name, (out, given)) in enumerate(layers.items()):
        state[f"{name}.weight"], bias = linear(torch, out, given, seed)
        if name not in no_bias:
            state[f"{name}.bias"] = bias
    torch.save(state, path)
    return path


def export(head: Path, out: Path, *options: str) -> Path:
    """Run `edge-mil-export bundle` with the real extractor."""
    from edge_mil_export.cli import main

    arguments = ["bundle", "--extractor", "timm:tf_efficientnet_lite0"]
    arguments += ["--extractor-weights", str(shared(WEIGHTS)), "--aggregator", str(head)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*arguments, "--out", str(out), "--licence", "Apache-2.0", *options]) == 0
    return out


@pytest.fixture(scope="session")
def tile_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real extractor with a CLAM-SB head, tiles of 128 px at 0.5 um/px."""
    folder = tmp_path_factory.mktemp("tiles")
    layers = {
        "attention_net.0": (512, WIDTH),
        "attention_net.3.attention_a.0": (256, 512),
        "attention_net.3.attention_b.0": (256, 512),
        "attention_net.3.attention_c": (1, 256),
        "classifiers": (2, 512),
        "instance_classifiers.0": (2, 512),
        "instance_classifiers.1": (2, 512),
    }
    head = checkpoint(layers, folder / "clam_sb.pt")
    return export(head, folder / "bundle", "--tile-px", "128", "--mpp", "0.5")


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
