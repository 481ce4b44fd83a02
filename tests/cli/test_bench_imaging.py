"""`edge-mil bench imaging`: a table of every step of the imaging path."""

from __future__ import annotations

import json

import cv2
import pytest

from edge_mil.cli import main
from edge_mil.cli.bench.imaging_fields import large_image, path, shading
from edge_mil.cli.bench.imaging_steps import STEPS, SteppedPath
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Verdict


def test_every_step_is_timed_next_to_its_bare_calls(capsys: pytest.CaptureFixture[str]) -> None:
    threads = cv2.getNumThreads()
    assert main(["bench", "imaging", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["field_px"] == [2448, 2048]
    for measured in found["paths"].values():
        assert [step["step"] for step in measured["steps"]] == list(STEPS)
        assert all(step["ms"] >= 0 and step["bare_ms"] > 0 for step in measured["steps"])
        assert measured["whole_ms"] > 0
        assert measured["ratio"] > 0
    assert all(ms > 0 for ms in found["apart_ms"].values())
    assert cv2.getNumThreads() == threads  # restored after one core


def test_the_fields_of_the_benchmark_are_such_as_a_session_accepts() -> None:
    light = shading()
    gate = FrameGate(GateSettings(), TissueTest())
    for frame in path(large_image(None), light, dense=True)[:2]:
        assert gate.saturation(frame.pixels).passed
        result = gate.evaluate(light.apply(frame.pixels))
        assert result.judged
        assert result.verdict not in (Verdict.BLURRED, Verdict.MOVING)


def test_the_dense_path_brings_few_new_cells_and_the_wide_one_many() -> None:
    light, picture = shading(), large_image(None)
    added = []
    for dense in (True, False):
        stepped, before = SteppedPath(light), 0
        for number, frame in enumerate(path(picture, light, dense=dense)[:2], start=1):
            before = stepped.held
            stepped.take(number, frame)
        added.append(stepped.held - before)
    assert added[0] < added[1]


def test_no_round_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "imaging", "--rounds", "0"]) == 2
    assert "--rounds" in capsys.readouterr().err
