"""Every command of docs/commissioning.md runs, in its order, on the painted example."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "commissioning.md"
COMMANDS = re.findall(r"^    (edge-mil .+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_every_command_of_the_page_does_what_the_page_says(tmp_path: Path) -> None:
    program = ROOT / "tests" / "benchmarks" / "commissioning_example.py"
    made = run([sys.executable, str(program), "example"], tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "edge_mil").symlink_to(ROOT / "edge_mil")
    service: subprocess.Popen[str] | None = None
    try:
        for command in COMMANDS:
            words = [sys.executable, "-m", "edge_mil.cli", *shlex.split(command)[1:]]
            if words[3] == "serve":
                service = _serve(words, tmp_path)
                continue
            done = run(words, tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            last = done.stdout
        assert re.search(r"camera\s+verified", last)
    finally:
        if service is not None:
            service.terminate()
            service.communicate(timeout=60)
    page = (tmp_path / "example" / "passport.html").read_text(encoding="utf-8")
    assert "Camera passport: 20x" in page


def test_the_page_shows_images_that_are_there() -> None:
    for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / name).stat().st_size > 1000


def _serve(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start the service and wait until its bundle is ready."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "READY" in line:
            return process
    raise AssertionError("the service ended before it was ready")
