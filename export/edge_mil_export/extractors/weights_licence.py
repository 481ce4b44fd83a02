"""The licence of weights by the model card that lies beside them."""

from __future__ import annotations

import re
from pathlib import Path

CARD = "README.md"
MAX_CARD_BYTES = 1_000_000
"""Above any model card at hand."""
FIELD = re.compile(r"^(license|license_name|extra_gated_\w+)\s*:\s*(.*)$")


def licence_beside(weights: Path) -> str:
    """Return the terms that a model card states; "" where there is none or it names none.

    Only the header of a card as model hubs write it counts (`---`, then `license:`). A card that
    asks for consent before it hands the file out makes the licence "gated".

    Args:
        weights: The file of weights; its folder is searched.
    """
    card = weights.with_name(CARD)
    try:
        if not card.is_file() or card.stat().st_size > MAX_CARD_BYTES:
            return ""
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    if not lines or lines[0].strip() != "---":
        return ""
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if match := FIELD.match(line):
            found[match[1]] = match[2].strip().strip("\"'")
    licence = found.get("license", "")
    if not licence:
        return ""
    if found.get("license_name"):
        licence += f": {found['license_name']}"
    is_gated = any(name.startswith("extra_gated") for name in found)
    return f"{licence}, gated" if is_gated else licence
