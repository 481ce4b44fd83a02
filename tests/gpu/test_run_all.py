"""The acceptance script itself, as far as a machine without a GPU can try it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from fake_gpu import build_library, environment

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


def test_on_the_stand_in_everything_holds_but_what_only_hours_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CUDA_REPORT", str(tmp_path / "left"))
    for name, value in environment(build_library()).items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out.json"
    ended = run("--minutes", "0", "--rounds", "1", "--out", str(out))
    found = json.loads(out.read_text(encoding="utf-8"))
    holds = found["holds"]
    assert [what for what, value in holds.items() if value is False] == [], ended.stderr
    assert [what for what, value in holds.items() if value is None] == ["demo: memory stays"]
    # What was not shown accepts nothing.
    assert ended.returncode == 1
    demo = found["bundles"]["demo"]
    assert demo["hours"]["runs"].split(";")[0] in demo["stream"]["served"]
    assert len(demo["engines"]["engines"]) == 2
    left = {line.strip() for line in (tmp_path / "left").read_text().splitlines()}
    assert left == {"contexts 0, device bytes 0, host bytes 0, mistakes 0"}


def test_a_skipped_test_is_not_a_passed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU without TensorRT: the tests are skipped, and the device is not accepted."""
    script = load_script()
    for name, value in environment(build_library()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FAKE_TENSORRT_FAULTS", "import-error")
    assert script.tests() is None


def test_memory_is_judged_after_a_warm_up_alone() -> None:
    script = load_script()
    assert script.growth([float(n) for n in range(200)]) is None
    rising = [float(n) for n in range(120)]
    assert script.growth(rising + [120.0] * 400) == 0.0
    assert script.growth(rising + [120.0] * 200 + [220.0] * 200) == 100.0


def load_script() -> ModuleType:
    loader = SourceFileLoader("run_all", str(SCRIPT))
    spec = importlib.util.spec_from_loader("run_all", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


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
