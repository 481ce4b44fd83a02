"""A service that is asked for TensorRT on a machine that can build engines and run none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from demo_graphs import DEMO
from running_service import RunningService, WireStream, launch, open_session, tissue_frames

from edge_mil.backends.tensorrt.device import find_device
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.library import Library
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

pytestmark = [
    pytest.mark.trt_build,
    pytest.mark.skipif(find_device() is not None, reason="this machine has a GPU"),
]
WAIT_S = 60.0


def test_it_serves_at_once_says_why_no_engine_runs_and_builds_none(
    library: Library, tmp_path: Path
) -> None:
    words = ("--backend", "tensorrt", "--precision", "int8", "--threads", "1")
    service = RunningService(DEMO, tmp_path, "", *words)
    try:
        with service.channel as channel:
            seen: list[pb.ModelInfo] = []
            ends = time.monotonic() + WAIT_S
            while not (seen and "no NVIDIA GPU" in seen[-1].detail) and time.monotonic() < ends:
                listed = rpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest())
                seen.append(listed.models[0])
                time.sleep(0.02)
            assert {model.state for model in seen} == {"READY"}
            assert "demo-painted-tissue cannot run on tensorrt here" in seen[-1].detail
            assert seen[-1].precision == "fp32"
            stream = WireStream(channel, open_session(channel).session_id)
            stream.send(next(tissue_frames(1, 256)), 1)
            assert not stream.result().HasField("error")
            stream.end()
    finally:
        assert service.stop() == 0
    assert list(EngineCache(tmp_path / "state" / "engines").engines()) == []


def test_stopping_it_ends_a_build_at_once(library: Library, tmp_path: Path) -> None:
    service = RunningService(DEMO, tmp_path, "", "--backend", "tensorrt", "--precision", "fp32")
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 10
    assert list((tmp_path / "state" / "engines").glob("*.part")) == []


def test_engines_that_cannot_be_kept_are_an_error_at_the_start(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "engines").write_text("in the way")
    listen = f"unix:{tmp_path / 's.sock'}"
    words = ["--bundle", str(DEMO), "--listen", listen, "--state", str(tmp_path / "state")]
    process, said = launch([*words, "--backend", "tensorrt"])
    assert "Engines cannot be kept in" in said.get(timeout=WAIT_S)
    assert process.wait(WAIT_S) == 2
