"""Where sessions are kept on Linux: paths that earlier releases used too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_mil.state_directory import default_state_folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have places of their own")
@pytest.mark.parametrize("named", ["", None])
def test_it_is_the_users_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if named is not None:
        monkeypatch.setenv("XDG_STATE_HOME", named)
    assert default_state_folder() == tmp_path / ".local" / "state" / "edge-mil"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have places of their own")
def test_xdg_state_home_names_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_folder() == tmp_path / "edge-mil"
