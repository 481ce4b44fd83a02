"""The device part of the suite with the versions of a Jetson, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = Path(__file__).parent / "constraints.txt"
PARTS = (
    "aggregators",
    "backends",
    "bundle",
    "calibration",
    "cameras",
    "cli",
    "client",
    "imaging",
    "pipeline",
    "rpc",
    "service",
    "session",
    "store",
)
"""Folders of tests; those of their files that train or export with torch are left out."""
EXPORTING = (
    "import torch",
    "from torch",
    "edge_mil_export",
    "small_extractor",
    "graph_zoo",
    "live_heads",
)


def needs_the_exporter(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return any(word in text for word in EXPORTING)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_device_part_passes_with_the_versions_that_python_3_10_has(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = [f"{ROOT}[device]", "pytest", "pytest-timeout", "hypothesis", "onnx<1.20"]
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "-c", str(CONSTRAINTS), *wanted], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in installed.stderr or "connection" in installed.stderr.lower():
        pytest.skip(f"pip could not fetch the versions: {installed.stderr.strip()[-200:]}")
    assert installed.returncode == 0, installed.stderr[-2000:]

    versions = subprocess.run(
        [str(python), "-c", "import numpy, onnxruntime, grpc; print(numpy.__version__, "
         "onnxruntime.__version__, grpc.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert versions.stdout.split() == ["2.2.6", "1.23.2", "1.66.2"]

    folders = [ROOT / "tests" / part for part in PARTS if (ROOT / "tests" / part).is_dir()]
    left_out = [
        f"--ignore={path}"
        for folder in folders
        for path in sorted(folder.rglob("test_*.py"))
        if needs_the_exporter(path)
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ended = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-m", "not slow and not trt_build", "-p",
         "no:cacheprovider", *left_out, *map(str, folders)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert " passed" in ended.stdout
