"""The files of this repository, as tests of its pages and names see them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "edge_mil" / "v1"


def tracked_files() -> list[Path]:
    """Return every file that git tracks, or would once it is added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(path for name in listed.splitlines() if (path := ROOT / name).is_file())


def pages() -> list[Path]:
    """Return every Markdown page but the changelog, whose old entries name what was."""
    return [p for p in tracked_files() if p.suffix == ".md" and p.name != "CHANGELOG.md"]


def written_pages() -> list[Path]:
    """Return the pages of README, CONTRIBUTING, docs/ and deploy/."""
    return [
        page
        for page in pages()
        if page.parent == ROOT or page.relative_to(ROOT).parts[0] in ("docs", "deploy")
    ]


def python_files() -> list[Path]:
    """Return every Python file that is not generated."""
    return [p for p in tracked_files() if p.suffix == ".py" and GENERATED not in p.parents]


def production_files() -> list[Path]:
    """Return the Python files of the two import packages, without generated ones."""
    packages = (ROOT / "edge_mil", ROOT / "export" / "edge_mil_export")
    return [p for p in python_files() if any(package in p.parents for package in packages)]
