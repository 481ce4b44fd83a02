"""The licences of a bundle's two parts: as the user names them, or by the model card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge_mil.bundle import Licences
from edge_mil.errors import UsageError

UNKNOWN = "unknown, not to be passed on"
PARTS = ("extractor", "aggregator")
CLOSED = re.compile(
    r"\bnd\b|no.?deriv|gated|proprietary|all rights reserved|unknown|^other\b", re.IGNORECASE
)
"""Terms under which an exported (so changed) copy may not be passed on."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Both licences, and which of them nobody named."""

    licences: Licences
    unknown: tuple[str, ...]

    @property
    def redistributable(self) -> bool:
        """Whether the extractor may be passed on; `pack` leaves it out where it may not."""
        return CLOSED.search(self.licences.extractor) is None

    @property
    def aggregator_redistributable(self) -> bool:
        """Whether the aggregator may be passed on, for a bundle that holds it alone."""
        return CLOSED.search(self.licences.aggregator) is None


def parse_licences(words: Sequence[str], *, card: str) -> Terms:
    """Read repeated `--licence`: extractor=TEXT, aggregator=TEXT, or one TEXT for both.

    Args:
        words: As they were given.
        card: The extractor's licence by its model card; "" when it names none.

    Raises:
        UsageError: A part is named twice.
    """
    found: dict[str, str] = {}
    for word in words:
        part, equals, text = word.partition("=")
        parts = (part,) if equals and part in PARTS else PARTS
        for name in parts:
            if name in found:
                raise UsageError(
                    f"--licence names the {name}'s terms twice; give extractor=TEXT and "
                    "aggregator=TEXT, or one TEXT for both."
                )
            found[name] = text if equals and part in PARTS else word
    if "extractor" not in found and card:
        found["extractor"] = card
    unknown = tuple(part for part in PARTS if not found.get(part))
    licences = Licences(*(found.get(part) or UNKNOWN for part in PARTS))
    return Terms(licences, unknown)
