"""Read what model hubs put beside the weights: config.json, preprocessor_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.source import Normalisation

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
MAX_CONFIG_BYTES = 1_000_000
"""Far above any such file, so that another file of that name is not read whole."""
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".tar", ".torch", ".ckpt")
ACTIVATION_NAMES = {"gelu": "gelu", "quick_gelu": "quick_gelu"}
"""Names of Hugging Face -> ours."""
GATED_ACTIVATIONS = ("silu", "swish")
"""Of gated perceptrons, about which nothing is asked."""


def weights_of(path: Path) -> Path:
    """Return the file of weights that is meant: the path itself, or the one of a folder.

    Raises:
        ExtractorError: The folder holds none or several, or they are in parts.
    """
    if not path.is_dir():
        if not path.is_file():
            raise ExtractorError(f"There is no file {path}; check the path of the extractor.")
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
        if (path / f"{name}.index.json").is_file():
            raise ExtractorError(
                f"{path} holds its weights in several files ({name}.index.json); save them as one "
                "file, and export that."
            )
    found = sorted(p for p in path.iterdir() if p.suffix in WEIGHT_SUFFIXES and p.is_file())
    if len(found) != 1:
        what = f"{len(found)} files of weights" if found else "no file of weights"
        raise ExtractorError(
            f"{path} holds {what} and neither {WEIGHT_FILES[0]} nor {WEIGHT_FILES[1]}; name the "
            "file."
        )
    return found[0]


def read_config(weights: Path) -> dict[str, dict[str, object]]:
    """Return the facts that lie beside a file of weights.

    Args:
        weights: The file; its folder is searched.

    Returns:
        Name of the file -> fact -> value, as `Facts.sources` takes them.

    Raises:
        ExtractorError: A file is there that is no JSON object.
    """
    found: dict[str, dict[str, object]] = {}
    config = _read(weights.with_name(CONFIG))
    if config is not None:
        found[CONFIG] = _facts(config)
    preprocessor = _read(weights.with_name(PREPROCESSOR))
    if preprocessor is not None:
        normal = _normalisation(preprocessor.get("image_mean"), preprocessor.get("image_std"))
        if normal is not None and preprocessor.get("do_normalize", True):
            found[PREPROCESSOR] = {"normalisation": normal}
    return found


def _facts(config: Mapping[str, Any]) -> dict[str, object]:
    """Return the facts of Hugging Face's configuration, or of timm's."""
    found: dict[str, object] = {}
    vision = config.get("vision_config")
    inside = vision if isinstance(vision, Mapping) else config
    heads, eps = inside.get("num_attention_heads"), inside.get("layer_norm_eps")
    if isinstance(heads, int):
        found["num_heads"] = heads
    if isinstance(eps, float) and eps > 0:
        found["norm_eps"] = eps
    activation = inside.get("hidden_act")
    if activation in ACTIVATION_NAMES:
        found["activation"] = ACTIVATION_NAMES[activation]
    elif isinstance(activation, str) and activation not in GATED_ACTIVATIONS:
        raise ExtractorError(
            f"{CONFIG} says hidden_act={activation}, and only {', '.join(ACTIVATION_NAMES)} are "
            "computed; write a function that builds the model and use python:MODULE:FACTORY."
        )
    if isinstance(inside.get("rope_theta"), int | float):
        found["rope_theta"] = float(inside["rope_theta"])
    given = config.get("model_args")
    if isinstance(given, Mapping) and isinstance(given.get("num_heads"), int):
        found["num_heads"] = given["num_heads"]
    pretrained = config.get("pretrained_cfg")
    if isinstance(pretrained, Mapping):
        normal = _normalisation(pretrained.get("mean"), pretrained.get("std"))
        if normal is not None:
            found["normalisation"] = normal
    return found


def _normalisation(mean: object, std: object) -> Normalisation | None:
    """Return mean and standard deviation where both are three numbers of 0 to 1."""
    parts = []
    for part in (mean, std):
        if not (isinstance(part, list) and len(part) == 3):
            return None
        if not all(isinstance(n, int | float) and 0 <= n <= 1 for n in part):
            return None
        parts.append(tuple(float(n) for n in part))
    return Normalisation(*parts) if min(parts[1]) > 0 else None


def _read(path: Path) -> Mapping[str, Any] | None:
    """Return a JSON object; None where there is no such file."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ExtractorError(f"{path} is no configuration of a model (it is too large).")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExtractorError(
            f"{path} lies beside the weights and is no JSON file; mend or remove it."
        ) from error
    if not isinstance(found, Mapping):
        raise ExtractorError(f"{path} lies beside the weights and is no JSON object; remove it.")
    return found
