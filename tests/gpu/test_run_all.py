"""The acceptance script itself, as far as a machine without a GPU can try it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mil.backends.tensorrt.device import find_device

SCRIPT = Path(__file__).parent / "run_all"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(find_device() is not None, reason="this machine has an NVIDIA GPU")
def test_without_a_gpu_nothing_is_accepted() -> None:
    ended = run()
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.strip() == (
        "run_all: this machine shows no NVIDIA GPU, so there is nothing to accept."
    )


@pytest.mark.slow
def test_every_part_that_a_cpu_can_run_gives_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run("--without-gpu", "--minutes", "0.1", "--out", str(out))
    found = json.loads(out.read_text(encoding="utf-8"))
    demo = found["bundles"]["demo"]
    assert any(row["kept"] for row in demo["tune"]["rows"])
    assert demo["stream"] is not None
    assert demo["hours"]["fields"] > 0
    assert found["holds"]["demo: no field is lost"] is True
