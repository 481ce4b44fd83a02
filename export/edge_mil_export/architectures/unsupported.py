"""Signatures that are recognised, of files that cannot be exported.

The table of signatures: `docs/design/aggregators.md`, "Signatures".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnsupportedHead:
    """A signature without a head.

    Attributes:
        name: As `--arch` will take it.
        keys: Key patterns that all must be there; "a|b" is either.
        row: Row of the signature table.
        reason: The message instead of "not there yet"; may hold {file}.
    """

    name: str
    keys: tuple[str, ...]
    row: int
    reason: str = ""


UNSUPPORTED = (
    UnsupportedHead(
        "dsmil_init",
        ("b_classifier.q.weight|b_classifier.q.0.weight", "b_classifier.v.1.weight"),
        400,
        "{file} holds only parts of DSMIL with which its training starts (b_classifier.q and "
        "b_classifier.v); it is no classifier, so export the checkpoint that the training wrote.",
    ),
)
