"""The official checkpoints and outputs of ../shared/golden, as files that the commands take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shared_data import shared


@dataclass(frozen=True)
class GoldenModel:
    """One folder of ../shared/golden."""

    name: str
    folder: Path
    model: dict[str, Any]
    options: dict[str, Any]
    expected: dict[str, str]

    @property
    def cases(self) -> list[str]:
        """File names of the cases that the official class could compute."""
        return sorted(path.name for path in self.folder.glob("case_*.npz"))

    def bag(self, file: str, folder: Path) -> Path:
        """Return a case as a features file; one with pseudo-bags is written first."""
        if "group" not in self.expected:
            return self.folder / file
        made = folder / f"{self.name}_{file}"
        case = np.load(self.folder / file)
        np.savez(made, features=case["features"], group=case[self.expected["group"]])
        return made

    def option_words(self) -> list[str]:
        """Return `--arch-option K=V` for what the file cannot tell."""
        pairs = [f"{k}={str(v).lower()}" for k, v in self.options.items()]
        return [word for pair in pairs for word in ("--arch-option", pair)]

    def checkpoint(self, folder: Path) -> Path:
        """Return the checkpoint's file; where only a recipe is stored, it is written first."""
        stored = self.folder / "checkpoint.safetensors"
        if stored.exists():
            return stored
        if "checkpoint" in self.model:
            return (
                shared("checkpoints")
                / self.model["checkpoint"].split(" ")[0].split("checkpoints/")[1]
            )
        from safetensors.numpy import save_file

        made = folder / f"{self.name}.safetensors"
        save_file(_recipe(self.model), made)
        return made


def golden_model(name: str) -> GoldenModel:
    """Return a model of ../shared/golden, or skip the test."""
    folder = shared(f"golden/{name}")
    model = json.loads((folder / "model.json").read_text())
    given = json.loads((folder / "import.json").read_text())
    return GoldenModel(name, folder, model, given["options"], given["expected"])


def golden_streams(name: str) -> dict[str, Any]:
    """Return the operations on a model's fields and the scores after them."""
    streams = json.loads((shared("golden/_streams") / "streams.json").read_text())
    found: dict[str, Any] = streams["models"][name]
    return found


def _recipe(model: dict[str, Any]) -> dict[str, np.ndarray]:
    """Make the weights of a recipe: `aggregators.md`, section 1."""
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
