"""Where this device keeps its sessions, calibrations and engines unless it is told otherwise."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_state_path


def default_state_folder() -> Path:
    """Return the user's state directory for edge-mil.

    On Linux `$XDG_STATE_HOME/edge-mil`, or `~/.local/state/edge-mil`; elsewhere where that system
    keeps such files.
    """
    return user_state_path("edge-mil", appauthor=False)
