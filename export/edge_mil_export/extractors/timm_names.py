"""Find the names of timm's models without importing it, which takes seconds."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import importlib.util
import re
from pathlib import Path

from edge_mil.errors import UsageError

MODEL = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def check_timm_name(name: str) -> None:
    """Refuse a name that timm has not; let it pass where timm cannot be read.

    Args:
        name: With or without a tag: resnet18, vit_small_patch16_224.dino.

    Raises:
        UsageError: There is no such model, or the name is a place on a hub.
    """
    if ":" in name or "/" in name:
        raise UsageError(
            f"timm:{name} is a place on a hub, and nothing is downloaded; name the architecture "
            "(as timm:vit_small_patch16_224) and give the file with --extractor-weights."
        )
    names, texts = _models()
    plain = name.split(".")[0]
    # Old names stand in tables of deprecations, which timm itself resolves.
    if not names or plain in names or any(f"'{plain}'" in text for text in texts):
        return
    near = difflib.get_close_matches(plain, sorted(names), n=3)
    hint = f"; near it are {', '.join(near)}" if near else ""
    raise UsageError(f"timm {importlib.metadata.version('timm')} has no model {name}{hint}.")


@functools.cache
def _models() -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the names of timm's models and the source of their files; empty without timm."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        return frozenset(), ()
    files = sorted((Path(found.origin).parent / "models").glob("*.py"))
    texts = tuple(file.read_text(encoding="utf-8", errors="replace") for file in files)
    return frozenset(name for text in texts for name in MODEL.findall(text)), texts
