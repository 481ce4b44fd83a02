"""`edge-mil engine list` and `clear`, which need no TensorRT."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from demo_graphs import DEMO

from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.recipe import EngineKey
from edge_mil.cli import main


def test_a_failed_build_is_listed_with_its_reason_until_it_is_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = hashlib.sha256((DEMO / "extractor.int8.trt.onnx").read_bytes()).hexdigest()
    key = EngineKey({"graph": graph, "precision": "int8"})
    EngineCache(tmp_path / "engines").remember_failure(key, "extractor.int8.trt.onnx", "no memory")
    words = [str(DEMO), "--state", str(tmp_path)]
    assert main(["engine", "list", *words]) == 0
    assert "int8  failed on" in capsys.readouterr().out
    assert main(["engine", "list", *words, "--json"]) == 0
    (failed,) = json.loads(capsys.readouterr().out)["failed"]
    assert failed["reason"] == "no memory"
    assert main(["engine", "clear", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 1
    assert main(["engine", "list", *words]) == 0
    assert "has no engines" in capsys.readouterr().out
