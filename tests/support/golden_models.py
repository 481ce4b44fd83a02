"""Heads with weights and official outputs, as files that the commands take.

One case of every head is in the repository, `tests/data/golden`; the large set is the folder
`golden` of ../shared.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shared_data import shared

Array = np.ndarray[Any, Any]
SMALL = Path(__file__).parents[1] / "data" / "golden"


@dataclass(frozen=True)
class GoldenCase:
    """One bag and what the official model gives for it.

    Attributes:
        features: float32 (n, d).
        groups: Pseudo-bag of each instance, for DTFD; else None.
        coords: x and y of each instance, for heads that need them; else None.
        outputs: Name of a number of `score` in JSON -> the official one, flat.
        attention: Official weights of the instances, in the authors' layout; None where unknown.
    """

    features: Array
    groups: Array | None
    coords: Array | None
    outputs: Mapping[str, Array]
    attention: Array | None

    def write_bag(self, path: Path) -> Path:
        """Write a features file."""
        more = {"group": self.groups, "coords": self.coords}
        given = {name: array for name, array in more.items() if array is not None}
        np.savez(path, features=self.features, **given)
        return path


@dataclass(frozen=True)
class GoldenModel:
    """A head: what its file cannot tell, its weights, its cases.

    Attributes:
        folder: Of the small or the large set.
        options: For `--arch-option`.
        task: For `--task`; "" where the head leaves no doubt.
        model: Where it comes from, and the recipe of its weights where they are not stored.
        cases: By file name.
    """

    folder: Path
    options: Mapping[str, Any]
    task: str
    model: Mapping[str, Any]
    cases: Mapping[str, GoldenCase]

    def option_words(self) -> list[str]:
        """Return `--arch-option K=V` and `--task` for what the file cannot tell."""
        pairs = [f"{k}={str(v).lower()}" for k, v in self.options.items()]
        words = [word for pair in pairs for word in ("--arch-option", pair)]
        return words + (["--task", self.task] if self.task else [])

    def write_checkpoint(self, folder: Path) -> Path:
        """Return the checkpoint's file, written to `folder` where it is not there as it is."""
        made = folder / f"{self.folder.name}.safetensors"
        stored = self.folder / "checkpoint.safetensors"
        packed = self.folder / str(self.model.get("checkpoint", "checkpoint.safetensors.xz"))
        if "weights_recipe" in self.model:
            from safetensors.numpy import save_file

            save_file(recipe_weights(self.model), made)
        elif stored.exists():
            return stored
        elif packed.suffix == ".xz":
            made.write_bytes(lzma.decompress(packed.read_bytes()))
        else:  # trained weights of the large set: "../checkpoints/NAME (what it is)"
            return shared("checkpoints") / str(packed).split(" ")[0].split("checkpoints/")[1]
        return made


def small_names() -> list[str]:
    """Return the folders of tests/data/golden: a head's name, or that and a variant."""
    return sorted(path.parent.name for path in SMALL.glob("*/case.json"))


def small_model(name: str) -> GoldenModel:
    """Return a model of tests/data/golden."""
    folder = SMALL / name
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    with lzma.open(folder / case["bag"]) as file:
        features = np.load(file)
    with np.load(folder / "outputs.npz") as stored:
        outputs = dict(stored)
    apart = [outputs.pop(key, None) for key in ("group", "coords", "attention")]
    found = GoldenCase(features, *apart[:2], outputs, apart[2])
    return GoldenModel(folder, case["options"], case.get("task", ""), case, {"case": found})


def large_model(name: str) -> GoldenModel:
    """Return a model of ../shared/golden with the cases that the official class could compute.

    Skips the test where they are not there.
    """
    folder = shared(f"golden/{name}")
    given = json.loads((folder / "import.json").read_text(encoding="utf-8"))
    failed = given["official_fails"]
    paths = [path for path in sorted(folder.glob("case_*.npz")) if path.name not in failed]
    cases = {path.name: _case(path, given) for path in paths}
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return GoldenModel(folder, given["options"], given.get("task", ""), model, cases)


def golden_streams(name: str) -> dict[str, Any]:
    """Return the operations on the fields of a model of the large set, and the scores after."""
    streams = json.loads((shared("golden/_streams") / "streams.json").read_text())
    found: dict[str, Any] = streams["models"][name]
    return found


def recipe_weights(model: Mapping[str, Any]) -> dict[str, Array]:
    """Return weights that are a function of a seed and the shapes of `state_dict`.

    numpy keeps the stream of `RandomState` as it is (NEP 19); README.md of tests/data/golden has
    the recipe in words.
    """
    seed, gains = model["weights_recipe"]["seed"], model["weights_recipe"]["gains"]
    made = {}
    for index, key in enumerate(sorted(model["state_dict"])):
        shape = tuple(model["state_dict"][key][0])
        noise = np.random.RandomState(seed * 1000 + index).standard_normal(shape)
        last = key.split(".")[-1]
        if last in ("A_log", "A_b_log"):
            weights = np.log(np.arange(1, shape[1] + 1)) + 0.05 * noise
        elif last in ("D", "D_b"):
            weights = 1 + 0.1 * noise
        elif key.endswith(("dt_proj.bias", "dt_proj_b.bias")):
            weights = -3 + noise
        elif len(shape) == 1:
            weights = 1 + 0.1 * noise if last == "weight" else 0.1 * noise
        elif last in ("cls_token", "S", "latent", "q", "global_q_mm", "pooling_weights"):
            weights = noise
        else:
            fan = shape[0] if last == "phi" else np.prod(shape[1:])
            weights = noise * 1.4 / np.sqrt(fan)
        for part, gain in gains.items():
            weights = weights * gain if part in key else weights
        made[key] = weights.astype(np.float32)
    return made


def _case(path: Path, given: Mapping[str, Any]) -> GoldenCase:
    with np.load(path) as case:
        named = {ours: case[official] for ours, official in given["expected"].items()}
        attention = case.get("attention")
        features = case["features"]
        coords = {ours: case[stored] for stored, ours in given.get("inputs", {}).items()}
    groups, outputs = named.pop("group", None), {k: v.ravel() for k, v in named.items()}
    return GoldenCase(features, groups, coords.get("coords"), outputs, attention)
