"""The programs of docs/client.md, run as they stand against a real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_bundle import write_small_bundle

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
ADDRESS = "127.0.0.1:50051"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """Start `edge-mil serve` in a process of its own; give its address."""
    bundle = write_small_bundle(tmp_path / "bundle")
    address = f"unix:{tmp_path / 's.sock'}"
    words = ["serve", "--bundle", str(bundle.path), "--listen", address]
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mil.cli", *words, "--state", str(tmp_path / "state")],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    yield address
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert b"Traceback" not in errors, errors.decode()


def test_every_program_of_the_page_runs(service: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    program = "\n".join(blocks)
    assert ADDRESS in program
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace(ADDRESS, service)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env=dict(os.environ),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("ACCEPTED") >= 6
    assert "PIXEL_SIZE" in ended.stdout
    assert "['ACCEPTED', 'ACCEPTED', 'BLURRED']" in ended.stdout
