"""Train a ResNet-18 and a ViT-Tiny on real tiles to give EfficientNet-Lite0's features.

Real weights of other architectures, for `evaluate_quantization.py`: random ones hide what INT8
does. Tiles of 128 px of three H&E sets; what is learnt is the standardised features of the same
tile by the Lite0 of extractor/, through a linear layer that is thrown away. A few minutes of two
cores for both, so the networks are weak ones (the ViT is near its start); the seeds are fixed.

usage: python tests/benchmarks/distil_extractors.py DATA OUT
       DATA is ../shared/data; OUT gets resnet18.pt and vit_tiny_patch16_224.pt
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from edge_mil_export.extractors import TorchExtractor, open_extractor, parse_normalisation
from edge_mil_export.extractors.timm_model import build
from edge_mil_export.onnx_export.extractor_graph import export_extractor, open_graph
from edge_mil_export.tiles import TileMaker, spread
from torch import nn

from edge_mil.types import Float32Array, UInt8Array

TILE_PX = 128
TEACHER = "timm:tf_efficientnet_lite0"
TEACHER_WEIGHTS = "extractor/efficientnet_lite0_imagenet_fp16.safetensors"
NORMALISE = "0.485,0.456,0.406/0.229,0.224,0.225"
IMAGES = {"osteosarcoma_he": 64, "breakhis_400x": 15, "oral_he": 1}
"""Set -> most tiles of an image."""
BATCH = 32


@dataclass(frozen=True, slots=True)
class Student:
    """A network to train.

    Attributes:
        name: As timm names it.
        steps: Batches of 32.
        rate: Of AdamW at its height.
    """

    name: str
    steps: int
    rate: float


STUDENTS = (Student("resnet18", 90, 2e-3), Student("vit_tiny_patch16_224", 100, 1e-3))


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description="Distil a ResNet-18 and a ViT-Tiny from Lite0.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    distil_missing(arguments.data, arguments.out)


def distil_missing(data: Path, out: Path, students: tuple[Student, ...] = STUDENTS) -> None:
    """Train the students whose weights `out` does not hold."""
    wanted = [student for student in students if not (out / f"{student.name}.pt").exists()]
    if not wanted:
        return
    out.mkdir(parents=True, exist_ok=True)
    tiles = gather_tiles(data)
    start = time.process_time()
    targets = teacher_features(data, tiles)
    _say(f"{len(tiles)} tiles; features of {TEACHER}: {time.process_time() - start:.0f} CPU s")
    for student in wanted:
        start = time.process_time()
        module, error = distil(student, tiles, targets)
        torch.save(module.state_dict(), out / f"{student.name}.pt")
        _say(
            f"{student.name}: {student.steps} steps of {BATCH} tiles, "
            f"{time.process_time() - start:.0f} CPU s; {error:.2f} of the variance is left"
        )


def gather_tiles(data: Path) -> UInt8Array:
    """Return the tiles, uint8 (n, 128, 128, 3)."""
    maker = TileMaker((TILE_PX, TILE_PX), 1.0, "grid")
    parts = [
        file.tiles[spread(len(file.tiles), most)]
        for folder, most in IMAGES.items()
        for file in maker.folder(data / folder)
    ]
    return np.concatenate(parts)


def teacher_features(data: Path, tiles: UInt8Array) -> Float32Array:
    """Return Lite0's features of the tiles, each column at mean 0 and deviation 1."""
    source = open_extractor(
        TEACHER,
        weights=data / TEACHER_WEIGHTS,
        tile_px=(TILE_PX, TILE_PX),
        normalise=NORMALISE,
    )
    width = source.features(tiles[:1]).shape[1]
    found = open_graph(export_extractor(source, width).data).features(tiles)
    spread_of = np.maximum(found.std(axis=0), 1e-6)
    standard: Float32Array = (found - found.mean(axis=0)) / spread_of
    return standard


def distil(student: Student, tiles: UInt8Array, targets: Float32Array) -> tuple[nn.Module, float]:
    """Train one network.

    Args:
        student: Which, and for how long.
        tiles: uint8 (n, h, w, 3).
        targets: What to learn, float32 (n, d); a flipped or turned tile has the same.

    Returns:
        The network, and the share of the targets' variance that is left at the end.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module = build(student.name, (tiles.shape[1], tiles.shape[2])).train()
    last = nn.Linear(module.num_features, targets.shape[1])  # type: ignore[arg-type]
    parameters = [*module.parameters(), *last.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=student.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, student.rate, total_steps=student.steps, pct_start=0.2
    )
    normalisation = parse_normalisation(NORMALISE)
    source = TorchExtractor(student.name, tiles.shape[1:3], normalisation, module)
    order = np.concatenate(
        [rng.permutation(len(tiles)) for _ in range(-(-student.steps * BATCH // len(tiles)))]
    )
    left = []
    for step in range(student.steps):
        drawn = order[step * BATCH : (step + 1) * BATCH]
        planes = torch.from_numpy(source.normalise(tiles[drawn]))
        if rng.random() < 0.5:
            planes = planes.flip(3)
        planes = torch.rot90(planes, int(rng.integers(4)), (2, 3))
        loss = nn.functional.mse_loss(last(module(planes)), torch.from_numpy(targets[drawn]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        left.append(loss.item())
    return module.eval(), float(np.mean(left[-10:]))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
