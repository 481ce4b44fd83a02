"""`edge-mil engine` with the real builder, on a machine that can build engines and run none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from demo_graphs import DEMO

from edge_mil.backends.tensorrt.device import find_device
from edge_mil.backends.tensorrt.library import Library
from edge_mil.cli import main

pytestmark = [
    pytest.mark.trt_build,
    pytest.mark.usefixtures("library"),
    pytest.mark.skipif(find_device() is not None, reason="this machine has a GPU"),
]


@pytest.fixture
def engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a verb with `--json`; return its exit code and document."""

    def run(verb: str, *words: str) -> tuple[int, dict[str, Any]]:
        code = main(["engine", verb, str(DEMO), "--state", str(tmp_path), "--json", *words])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_engines_are_built_listed_found_again_and_cleared(engine: Any, library: Library) -> None:
    code, built = engine("build")
    assert code == 0
    assert [row["precision"] for row in built["engines"]] == ["int8", "fp32"]
    assert all(row["check"] is None for row in built["engines"])
    assert all("nothing is known of its numbers" in row["note"] for row in built["engines"])
    assert not any(row["from_cache"] for row in built["engines"])
    assert library.title in built["runs"]

    listed = engine("list")[1]
    assert {row["device"] for row in listed["engines"]} == {"no-device"}
    assert {row["precision"] for row in listed["engines"]} == {"int8", "fp32"}
    assert all(row["from_cache"] for row in engine("build")[1]["engines"])

    assert engine("clear")[1]["removed"] == 2
    assert engine("list")[1]["engines"] == []


def test_one_precision_is_built_alone(engine: Any) -> None:
    code, built = engine("build", "--precision", "int8")
    assert code == 0
    assert [row["precision"] for row in built["engines"]] == ["int8"]


def test_a_precision_that_the_bundle_lacks_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["engine", "build", str(DEMO), "--state", str(tmp_path), "--precision", "fp16"]
    assert main(words) == 2
    assert "has no fp16 graph for TensorRT; it has int8, fp32" in capsys.readouterr().err


def test_people_are_told_plainly_that_the_engine_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["engine", "build", str(DEMO), "--state", str(tmp_path), "--precision", "int8"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "not run: this machine shows no NVIDIA GPU" in printed.out
    assert main(["engine", "list", str(DEMO), "--state", str(tmp_path)]) == 0
    assert "built ahead, for any device" in capsys.readouterr().out
