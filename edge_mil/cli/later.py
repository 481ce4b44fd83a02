"""The commands whose names are kept for a later release: asked for, each says so in a sentence."""

from __future__ import annotations

from edge_mil.errors import NotThereYetError

LATER = {
    "engine": ("build, list and clear TensorRT engines", "the TensorRT and Jetson release"),
}
"""Command -> what it will do, and the release that brings it."""


def not_there_yet(command: str) -> NotThereYetError:
    """Return the sentence that says what the command will do, and that it comes later."""
    will, release = LATER[command]
    return NotThereYetError(
        f"edge-mil {command} is not in this release: it will {will}, and comes with {release}."
    )
