"""Export full-size vision transformers with random weights: time, memory and file sizes.

    python tests/benchmarks/large_extractors.py [--precision fp32,fp16] [--models uni,...]

Each export is `edge-mil-export bundle --extractor preset:NAME` in a process of its own, on a file
in its authors' layout with random weights; the table is markdown. INT8 calibrates on generated
tiles, so its columns say what it costs and not how good it is.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import repository_path  # noqa: F401 - puts the packages and the tests' helpers on the path

GIB, MB = 2**30, 1_000_000
TILE_PX = 224
SEED = 0
WEIGHT_STD = 0.02
"""Of fresh transformers; timm, DINO and DINOv2 draw so."""
CALIBRATION_IMAGES, IMAGE_TILES = 12, 4


@dataclass(frozen=True)
class Model:
    """A published size.

    Attributes:
        preset: Name of its preset.
        title: What it is.
        width, depth, patch, registers: Of the transformer.
        grid: Side of the grid that its position embedding is for.
    """

    preset: str
    title: str
    width: int
    depth: int
    patch: int
    registers: int
    grid: int


MODELS = (
    Model("uni", "ViT-L/16 as UNI", 1024, 24, 16, 0, 14),
    Model("dinov2-vitl14-reg4", "ViT-L/14, 4 registers, as DINOv2", 1024, 24, 14, 4, 37),
)


def random_file(model: Model, path: Path) -> None:
    """Write weights of a model under the names that its authors give them."""
    import torch

    maker, d = torch.Generator().manual_seed(SEED), model.width

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=maker) * WEIGHT_STD

    state = {
        "cls_token": drawn(1, 1, d),
        "pos_embed": drawn(1, 1 + model.grid**2, d),
        "patch_embed.proj.weight": drawn(d, 3, model.patch, model.patch),
        "patch_embed.proj.bias": drawn(d),
        "norm.weight": torch.ones(d),
        "norm.bias": drawn(d),
    }
    if model.registers:
        state |= {"register_tokens": drawn(1, model.registers, d), "mask_token": drawn(1, d)}
    layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d)}
    layers["mlp.fc2"] = (d, 4 * d)
    for at in (f"blocks.{i}." for i in range(model.depth)):
        for name, shape in layers.items():
            state[f"{at}{name}.weight"] = drawn(*shape)
            state[f"{at}{name}.bias"] = drawn(shape[0])
        for number in (1, 2):
            state[f"{at}norm{number}.weight"] = torch.ones(d)
            state[f"{at}norm{number}.bias"] = drawn(d)
            state[f"{at}ls{number}.gamma"] = torch.ones(d)
    torch.save(state, path)


def export(model: Model, precision: str, folder: Path) -> list[str]:
    """Export one model in a process of its own; return its row of the table."""
    from small_extractor import write_head, write_images

    weights, head, out = folder / "weights.pth", folder / "head.pt", folder / "bundle"
    random_file(model, weights)
    write_head(head, model.width)
    command = [
        *(sys.executable, "-m", "edge_mil_export.cli", "bundle"),
        *("--extractor", f"preset:{model.preset}", "--extractor-weights", str(weights)),
        *("--aggregator", str(head), "--tile-px", str(TILE_PX), "--mpp", "0.5"),
        *("--precision", precision, "--out", str(out), "--licence", "MIT", "--json"),
    ]
    if "int8" in precision:
        images = write_images(folder / "tiles", CALIBRATION_IMAGES, IMAGE_TILES * TILE_PX)
        command += ["--calibration", str(images)]
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    # Linux counts in KiB, and keeps the largest of all children so far.
    peak = used.ru_maxrss * 1024 / GIB
    if done.returncode:
        return [model.title, precision, f"refused: {done.stderr.strip()}", "", "", "", ""]
    fidelity = json.loads(done.stdout)["fidelity"]
    forms = [
        f"{key}: {figures['score_difference_max']:.4f} {figures.get('form', {}).get('name', '')}"
        for key, figures in fidelity["comparisons"].items()
    ]
    sizes = [f"{path.name} {path.stat().st_size / MB:.0f}" for path in sorted(out.glob("ex*.onnx"))]
    return [
        model.title,
        f"{weights.stat().st_size / MB:.0f}",
        f"{seconds / 60:.1f}",
        f"{cpu / 60:.1f}",
        f"{peak:.1f}",
        ", ".join(sizes),
        "; ".join(form.strip() for form in forms),
    ]


def main() -> None:
    """Export each model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="fp32,fp16", metavar="P,...")
    parser.add_argument("--models", default="", metavar="PRESET,...", help="default: all")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.models.split(",") if name]
    print("| model | weights, MB | minutes | CPU minutes | GiB | graphs, MB | score moved, max |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in MODELS:
        if wanted and model.preset not in wanted:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row = export(model, arguments.precision, Path(scratch))
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
