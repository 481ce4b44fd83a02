"""With the network cut: the demo, and export and score from local files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from network_cut import run_without_network
from safetensors.numpy import load_file, save_file
from shared_data import shared

WIDTH = 64
"""Of the features of the golden head."""
LITE0_WIDTH = 1280


def edge_mil(
    *words: str, cwd: Path, module: str = "edge_mil.cli"
) -> subprocess.CompletedProcess[str]:
    return run_without_network(
        [sys.executable, "-m", module, *words], python=sys.executable, cwd=cwd
    )


def test_the_network_is_really_cut(tmp_path: Path) -> None:
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    ended = run_without_network(
        [sys.executable, "-c", program], python=sys.executable, cwd=tmp_path
    )
    assert ended.returncode != 0
    assert "Network is unreachable" in ended.stderr


def test_the_demo_runs(tmp_path: Path) -> None:
    ended = edge_mil("demo", "--out", str(tmp_path / "demo"), "--fps", "1000", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == str(tmp_path / "demo" / "report.html")


def test_a_local_checkpoint_is_exported_and_scored(tmp_path: Path) -> None:
    checkpoint = shared("golden/clam_sb/checkpoint.safetensors")
    ended = edge_mil(
        *("aggregator", str(checkpoint), "--out", str(tmp_path / "b"), "--licence", "GPL-3.0"),
        cwd=tmp_path,
        module="edge_mil_export.cli",
    )
    assert ended.returncode == 0, ended.stderr
    case = shared("golden/clam_sb/case_N64.npz")
    ended = edge_mil("score", str(tmp_path / "b"), str(case), "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    logits = json.loads(ended.stdout)["score"]["logits"]
    wanted = np.load(case, allow_pickle=False)["logits"].ravel()
    assert np.allclose(logits, wanted, rtol=0, atol=1e-4)


def test_a_local_extractor_becomes_a_bundle(tmp_path: Path) -> None:
    weights = shared("data/extractor/efficientnet_lite0_imagenet_fp16.safetensors")
    arrays = load_file(shared("golden/clam_sb/checkpoint.safetensors"))
    (first,) = [key for key in arrays if arrays[key].ndim == 2 and arrays[key].shape[1] == WIDTH]
    rng = np.random.default_rng(0)
    arrays[first] = rng.normal(0, 0.03, (len(arrays[first]), LITE0_WIDTH)).astype(np.float32)
    save_file(arrays, tmp_path / "head.safetensors")
    ended = edge_mil(
        *("bundle", "--extractor", "timm:tf_efficientnet_lite0"),
        *("--extractor-weights", str(weights), "--aggregator", str(tmp_path / "head.safetensors")),
        *("--tile-px", "64", "--mpp", "0.5", "--licence", "Apache-2.0"),
        *("--out", str(tmp_path / "b")),
        cwd=tmp_path,
        module="edge_mil_export.cli",
    )
    assert ended.returncode == 0, ended.stderr
    ended = edge_mil("bundle", "verify", str(tmp_path / "b"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
