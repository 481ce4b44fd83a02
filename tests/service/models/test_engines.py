"""Engines prepared by a service, on the stand-in for a GPU: whatever fails, the CPU goes on."""

from __future__ import annotations

import asyncio
import functools
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from demo_graphs import DEMO, demo_graph
from fake_gpu import FakeGpu, plugged_in
from painted_field import field, painted
from running_service import RunningService, WireStream, open_session

from edge_mil.backends.tensorrt.backend import TensorRtBackend
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.library import TENSORRT
from edge_mil.pipeline import load_model
from edge_mil.pipeline.runners.autotune import tune
from edge_mil.service.models.preparation import FITTING, Preparations, RunnerRequest
from edge_mil.service.models.registry import BundleRegistry, ServedBundle
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

WAIT_S = 120.0
TENSORRT_INT8 = RunnerRequest("tensorrt", "int8")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with plugged_in(monkeypatch) as plugged:
        yield plugged


@pytest.fixture
def quick_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(tune, rounds=2, batches=(1,))
    monkeypatch.setattr("edge_mil.service.models.preparation.tune", quick)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the FP32 engine of the demo's bundle."""
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patched, plugged_in(patched):
        TensorRtBackend(EngineCache(folder)).build_ahead(demo_graph("extractor.onnx"))
    return folder


class Prepared:
    """A bundle whose runner was prepared, and what was told of it."""

    def __init__(self, state: Path, request: RunnerRequest = TENSORRT_INT8) -> None:
        self.told: list[str] = []
        registry = BundleRegistry([DEMO], lambda bundle: load_model(bundle, threads=1))
        self.bundle: ServedBundle = registry.bundles[0]
        preparations = Preparations(state, self.told.append)

        async def work() -> None:
            await asyncio.to_thread(self.bundle.load)
            await preparations.select_engine(self.bundle, request, lambda: True)

        try:
            asyncio.run(work())
            self.info = self.bundle.info()
        finally:
            preparations.close()
            registry.close()


def test_an_idle_service_takes_the_engine_at_once_and_says_what_it_may_move(
    gpu: FakeGpu, tmp_path: Path
) -> None:
    prepared = Prepared(tmp_path)
    assert prepared.info.precision == "int8"
    assert prepared.info.detail.startswith("TensorRT 10.3.0 on Orin; int8 may move a score by 0.02")
    assert "runs from now on" in prepared.told[-1]
    gpu.check()


@pytest.mark.parametrize(
    ("driver", "tensorrt", "words"),
    [
        ("cuDevicePrimaryCtxRetain:2:0:-1", "", r"(?i)out.of.memory"),
        ("cuInit:999:1:-1", "", "cuInit"),
        ("cuMemHostAlloc:2:0:-1", "", r"(?i)out.of.memory"),
        ("cuCtxPushCurrent_v2:719:0:-1", "", "The GPU does not answer"),
        ("kernel:719:0:-1:sticky", "", "The GPU does not answer"),
        ("", "context-none", "for lack of memory"),
        ("", "no-runtime", "failed while it loaded"),
        ("", "build-killed", "the builder was killed"),
        ("", "build-raise", "an exception that nobody foresaw"),
        ("", "execute-false", "TensorRT refused the run"),
        ("", "wrong-numbers", "outside of the bundle's bound"),
    ],
)
def test_whatever_fails_the_cpu_goes_on_and_says_why(
    gpu: FakeGpu, tmp_path: Path, engines: Path, driver: str, tensorrt: str, words: str
) -> None:
    if not tensorrt.startswith("build"):
        shutil.copytree(engines, tmp_path / "engines")
    gpu.fail_tensorrt(tensorrt)
    gpu.fail(driver)
    prepared = Prepared(tmp_path, RunnerRequest("tensorrt", "fp32"))
    gpu.fail("")
    assert (prepared.info.state, prepared.info.precision) == ("READY", "fp32")
    assert re.search(words, prepared.info.detail)
    assert "goes on with ONNX Runtime" in prepared.told[-1]
    gpu.check()


def test_an_exception_that_nobody_foresaw_is_told_too(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/tmp")

    monkeypatch.setattr("edge_mil.service.models.preparation.select_engine", broken)
    prepared = Prepared(tmp_path)
    assert prepared.info.state == "READY"
    assert "No space left on device (/tmp)" in prepared.info.detail
    gpu.check()


@pytest.mark.usefixtures("quick_tuning")
def test_a_folder_that_keeps_no_engines_leaves_the_cpu_at_work(
    gpu: FakeGpu, tmp_path: Path
) -> None:
    (tmp_path / "engines").write_text("in the way")
    prepared = Prepared(tmp_path, RunnerRequest("auto", FITTING))
    assert prepared.info.state == "READY"
    gpu.check()


@pytest.mark.usefixtures("quick_tuning")
def test_what_failed_for_lack_of_memory_is_measured_again_at_the_next_start(
    gpu: FakeGpu, tmp_path: Path
) -> None:
    gpu.fail_tensorrt("build-killed")
    prepared = Prepared(tmp_path, RunnerRequest("tensorrt", FITTING))
    assert prepared.info.precision == "fp32"
    assert not list((tmp_path / "tuned").glob("*"))
    gpu.fail_tensorrt("")
    shutil.rmtree(tmp_path / "engines")
    prepared = Prepared(tmp_path, RunnerRequest("tensorrt", FITTING))
    assert prepared.info.detail.startswith("TensorRT 10.3.0 on Orin")
    assert list((tmp_path / "tuned").glob("*.json"))
    gpu.check()


def test_a_library_that_does_not_load_leaves_the_cpu_at_work(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mil.backends.tensorrt.library.LIBRARIES", (TENSORRT,))
    monkeypatch.delitem(sys.modules, TENSORRT)
    gpu.fail_tensorrt("import-error")
    prepared = Prepared(tmp_path, RunnerRequest("auto", FITTING))
    assert prepared.info.precision == "fp32"
    assert "edge-mil tune BUNDLE says" in prepared.info.detail


# The real service


def detail_until(
    channel: grpc.Channel, holds: Callable[[pb.ModelInfo], bool]
) -> list[pb.ModelInfo]:
    """Ask for the model until a condition holds; return all answers."""
    found: list[pb.ModelInfo] = []
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        found.append(rpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest()).models[0])
        if holds(found[-1]):
            return found
        time.sleep(0.02)
    raise AssertionError(f"the model never did: {found[-1]}")


def test_a_service_serves_on_the_engine_and_leaves_nothing_when_it_ends(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "left"
    monkeypatch.setenv("FAKE_CUDA_REPORT", str(report))
    words = ("--backend", "tensorrt", "--precision", "int8", "--threads", "1")
    service = RunningService(DEMO, tmp_path, "", *words)
    try:
        with service.channel as channel:
            seen = detail_until(channel, lambda model: model.precision == "int8")
            assert {model.state for model in seen} == {"READY"}
            assert "TensorRT 10.3.0 on Orin" in seen[-1].detail
            stream = WireStream(channel, open_session(channel).session_id)
            slide = painted(512, 512)
            stream.send(field(slide, 0, 0, 512, 512), 1)
            answer = stream.result()
            assert answer.verdict == pb.VERDICT_ACCEPTED
            assert answer.cells_added > 0
            stream.end()
    finally:
        assert service.stop() == 0
    lines = report.read_text().splitlines()
    assert lines
    assert {line.strip() for line in lines} == {
        "contexts 0, device bytes 0, host bytes 0, mistakes 0"
    }


def test_a_device_lost_in_the_middle_of_a_stream_costs_no_field(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine's check takes one batch; the fields after it meet the error.
    monkeypatch.setenv("FAKE_CUDA_FAULTS", "kernel:719:2:-1:sticky")
    words = ("--backend", "tensorrt", "--precision", "int8", "--threads", "1")
    service = RunningService(DEMO, tmp_path, "", *words)
    try:
        with service.channel as channel:
            detail_until(channel, lambda model: model.precision == "int8")
            stream = WireStream(channel, open_session(channel).session_id)
            slide = painted(512 * 4, 512)
            for number in range(4):
                stream.send(field(slide, 512 * number, 0, 512, 512), number + 1)
                assert stream.result().verdict == pb.VERDICT_ACCEPTED
            stream.end()
            detail_until(channel, lambda model: model.precision == "fp32")
    finally:
        assert service.stop() == 0
