"""The tree stays easy to read: small folders, and short files or a reason in the first comment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "edge_mil", ROOT / "export" / "edge_mil_export")
GENERATED = ROOT / "edge_mil" / "v1"
ONE_FILE_FOR_EACH = {ROOT / "export" / "edge_mil_export" / "architectures"}
"""Folders that hold one file for each implementation of one protocol."""

MAX_MODULES, MAX_LINES = 14, 300


def folders() -> list[Path]:
    """Return the folders of production code."""
    found = {path.parent for top in PACKAGES for path in top.rglob("*.py")}
    return sorted(found - {GENERATED})


@pytest.mark.parametrize("folder", folders(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_is_short_and_so_are_its_files(folder: Path) -> None:
    modules = list(folder.glob("*.py"))
    assert len(modules) <= MAX_MODULES or folder in ONE_FILE_FOR_EACH
    for path in modules:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_LINES:
            reason = ast.get_docstring(ast.parse(text)) or ""
            assert f"longer than {MAX_LINES} lines" in " ".join(reason.split()), path
