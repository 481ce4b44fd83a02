"""What training code saves beside the weights that answers questions about a head.

Lightning files hold `hyper_parameters` (STAMP's name the heads of the attention, the classes and
the task), and folders from model hubs a `config.json`. Only plain numbers and words are read;
classes that they name are never imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mil_export.errors import CheckpointError

HEADS = ("n_heads", "num_heads")
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
MAX_CONFIG_BYTES = 1_000_000
"""A configuration is some hundred bytes; more is none."""
TASKS = {"classification": "classification", "regression": "regression"}
"""STAMP's word for the task -> that of `--task`. Its "survival" is left to the user."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a checkpoint says of its head.

    Attributes:
        options: Option of a head -> value.
        classes: Names of the outputs; empty where it names none.
        task: As `--task` has it; "" where it says nothing.
    """

    options: Mapping[str, str]
    classes: tuple[str, ...] = ()
    task: str = ""


def told_by(settings: object) -> Told:
    """Return what the settings beside the weights say; anything unexpected says nothing.

    Args:
        settings: `hyper_parameters` of a Lightning file, or the content of `config.json`.
    """
    if not isinstance(settings, Mapping):
        return Told({})
    heads = next((settings[key] for key in HEADS if _is_count(settings.get(key))), None)
    names = settings.get("categories")
    classes: tuple[str, ...] = ()
    if isinstance(names, list | tuple) and all(isinstance(name, str) and name for name in names):
        classes = tuple(names) if len(set(names)) == len(names) else ()
    task = settings.get("task")
    found = TASKS.get(task, "") if isinstance(task, str) else ""
    return Told({} if heads is None else {"heads": str(heads)}, classes, found)


def weights_and_settings(path: Path) -> tuple[Path, Any]:
    """Return the file of the weights, and what the folder of a model hub says beside it.

    Args:
        path: A checkpoint, or a folder with `model.safetensors` and perhaps `config.json`.

    Raises:
        CheckpointError: It is a folder without such a file, or `config.json` cannot be read.
    """
    if not path.is_dir():
        return path, None
    if not (path / WEIGHTS_FILE).is_file():
        raise CheckpointError(
            f"{path} is a folder without {WEIGHTS_FILE}; name the checkpoint file inside of it."
        )
    config = path / CONFIG_FILE
    if not config.is_file():
        return path / WEIGHTS_FILE, None
    try:
        with config.open("rb") as file:
            return path / WEIGHTS_FILE, json.loads(file.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{config} cannot be read as JSON; remove it, or mend it.") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
