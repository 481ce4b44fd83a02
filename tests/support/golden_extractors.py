"""Published extractors with the features of their authors' code, as files that the commands take.

A few small ones are in the repository, `tests/data/golden_extractors`; the large set is the folder
`golden_extractors` of ../shared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SMALL = Path(__file__).parents[1] / "data" / "golden_extractors"
TOLERANCE = 1e-4
"""Of max(1, largest absolute feature)."""

POOLINGS = {
    "cls": "cls",
    "cls+mean": "cls_patch_mean",
    "mean of patch tokens, without class and register tokens": "patch_mean",
    "mean of all tokens": "token_mean",
    "global average pool of layer4": "average",
    "projection of the class token": "projected",
    "class token after post_layernorm, no projection": "cls",
    "attention pool + ln_contrast": "attention",
    "attention pool + ln_contrast + proj_contrast, divided by its length": "projected",
}
"""What a recipe calls a pooling -> what `--extractor-option pooling=` calls it."""
RULES = {
    "authors of DINO:": "dino",
    "authors of DINOv2:": "dinov2",
    "authors of DINOv2, models with registers:": "dinov2_antialias",
    "timm": "timm",
    "open_clip": "timm",
    "transformers": "transformers",
    "none": "none",
}
"""Beginning of a recipe's rule -> what `--extractor-option interpolation=` calls it."""
NETWORKS = {"base_encoder": "base", "momentum_encoder": "momentum"}
CONCH_EPS = 1e-6
"""Of the trunk; the recipe says it in words."""


@dataclass(frozen=True)
class ExtractorCase:
    """One file, one size of tiles, and the official features.

    Attributes:
        folder: Of the small or the large set.
        recipe: What the file is.
        case: The entry of its cases.
    """

    folder: Path
    recipe: Mapping[str, Any]
    case: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder.name}-{Path(self.case['features']).stem}"

    @property
    def expected(self) -> Array:
        """Return the official features, float32 (n, d)."""
        found: Array = np.load(self.folder / self.case["features"])
        return found

    @property
    def tiles(self) -> Array:
        """Return the tiles, uint8 (n, h, w, 3)."""
        height, width = self.case["tile_px"]
        tiles = _tiles(self.folder.parent)[: len(self.expected), :height, :width]
        return np.ascontiguousarray(tiles)

    @property
    def options(self) -> dict[str, str]:
        """Return what `--extractor-option` must say of the file."""
        architecture, found = self.recipe["architecture"], {}
        found["pooling"] = POOLINGS[self.case["pooling"]]
        rule = self.case["interpolation"]["rule"]
        # The longest beginning that fits: "authors of DINOv2:" and "authors of DINOv2, models".
        begin = max((known for known in RULES if rule.startswith(known)), key=len)
        found["interpolation"] = RULES[begin]
        if architecture["kind"].startswith("vit"):
            eps = architecture["norm_eps"]
            found["num_heads"] = str(architecture["num_heads"])
            found["norm_eps"] = repr(CONCH_EPS if isinstance(eps, str) else eps)
            if "gelu" in architecture.get("activation", ""):
                is_quick = "quick" in architecture["activation"]
                found["activation"] = "quick_gelu" if is_quick else "gelu"
        official = [v for k, v in self.recipe["cannot_tell"].items() if k.startswith("which of ")]
        network = self.case.get("branch") or next(
            (name for name in official if name in ("teacher", "encoder_q", "base_encoder")), ""
        )
        if network:
            found["weights"] = NETWORKS.get(network, network)
        return found

    @property
    def normalise(self) -> str:
        """Return `--normalise`."""
        made = self.recipe["preprocessing"]
        return "/".join(",".join(str(n) for n in made[part]) for part in ("mean", "std"))

    def checkpoint(self, scratch: Path) -> Path:
        """Return the file, made below `scratch` where only its recipe is stored."""
        stored = self.folder / self.recipe["checkpoint"]
        if stored.exists():
            return stored
        import torch

        path = scratch / self.folder.name / self.recipe["checkpoint"]
        if not path.exists():
            spec = json.loads((self.folder / "weights.json").read_text(encoding="utf-8"))
            state: Any = {k: torch.from_numpy(v) for k, v in _generated(spec).items()}
            for wrapper in reversed(spec["wrapper"]):
                state = {wrapper: state}
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)
        return path


def cases(root: Path) -> list[ExtractorCase]:
    """Return the cases of a set; none where it is not there."""
    found = []
    for path in sorted(root.glob("*/recipe.json")):
        recipe = json.loads(path.read_text(encoding="utf-8"))
        found += [ExtractorCase(path.parent, recipe, case) for case in recipe["cases"]]
    return found


def deviation(found: Array, expected: Array) -> float:
    """Return the largest difference as a share of the range."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def _tiles(root: Path) -> Array:
    stored = root / "tiles.npz"
    if not stored.exists():
        large: Array = np.load(root / "tiles.npy")
        return large
    with np.load(stored) as archive:
        small: Array = archive["tiles"]
    return small


def _generated(spec: Mapping[str, Any]) -> dict[str, Array]:
    """Make the weights that weights.json describes, and check their digest."""
    made: dict[str, Array] = {}
    total = hashlib.sha256()
    for place, (key, shape, kind, first, second) in enumerate(spec["weights"]):
        rng = np.random.default_rng([spec["seed"], place])
        if kind == "normal":
            values = rng.standard_normal(shape, dtype=np.float32)
            made[key] = values * np.float32(first) + np.float32(second)
        elif kind == "uniform":
            values = rng.random(shape, dtype=np.float32)
            made[key] = values * np.float32(second - first) + np.float32(first)
        elif kind == "centred":
            values = rng.standard_normal(shape, dtype=np.float32) * np.float32(first)
            mean = values.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
            made[key] = values - np.float32(0.5) * mean
        else:
            made[key] = np.full(shape, first, dtype=np.int64)
        total.update(key.encode() + b"\0" + np.ascontiguousarray(made[key]).tobytes())
    assert total.hexdigest() == spec["sha256"], "this numpy makes other random numbers"
    return made
