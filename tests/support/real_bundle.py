"""Bundles of a real extractor and a seeded head, exported as a user would."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

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


def tile_bundle(folder: Path) -> Path:
    """Export the real extractor with a CLAM-SB head, tiles of 128 px at 0.5 um/px."""
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
