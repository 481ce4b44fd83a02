"""Find a preset by its name, or by the shape of a file."""

from __future__ import annotations

import difflib
import re

from edge_mil.errors import UsageError
from edge_mil_export.extractors.published.preset_table import TABLE, Preset

PRESETS = {preset.name: preset for preset in TABLE}


def find_preset(name: str) -> Preset:
    """Return the preset of a name; case, dots, dashes and underscores do not matter.

    Raises:
        UsageError: There is none; the sentence names near ones, or all.
    """
    found = {_plain(known): preset for known, preset in PRESETS.items()}.get(_plain(name))
    if found is None:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=3)
        shown = f"near it are {', '.join(near)}" if near else f"there are {', '.join(PRESETS)}"
        raise UsageError(f"There is no preset {name}; {shown}.")
    return found


def presets_like(width: int, depth: int, patch: int, registers: int) -> list[str]:
    """Return the presets of transformers that have a file's shape."""
    shape = (width, depth, patch, registers)
    return [p.name for p in TABLE if (p.width, p.depth, p.patch, p.registers) == shape]


def _plain(name: str) -> str:
    return re.sub(r"[-_.\s]", "", name.lower())
