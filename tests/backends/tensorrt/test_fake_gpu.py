"""Engines on the stand-in for a GPU: every step can fail, and nothing is left alive."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from demo_graphs import DEMO, demo_graph
from fake_gpu import FakeGpu, plugged_in

from edge_mil.backends.tensorrt.backend import TensorRtBackend
from edge_mil.backends.tensorrt.building.supervisor import BuildLimits
from edge_mil.backends.tensorrt.device import find_device
from edge_mil.backends.tensorrt.drivers.driver import DRIVERS, Driver, check_driver, open_driver
from edge_mil.backends.tensorrt.drivers.pycuda import PycudaDriver
from edge_mil.backends.tensorrt.engines.cache import TRANSIENT_S, EngineCache
from edge_mil.bundle import open_bundle
from edge_mil.errors import BackendLostError, DependencyError, EngineError, UnavailableError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.runners.fallback import list_candidates, select_engine
from edge_mil.protocols import Graph, Network
from edge_mil.types import UInt8Array

DEMO_GRAPH = demo_graph("extractor.onnx")
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719
"""CUresult, from cuda.h."""

DRIVER_CALLS = (
    "cuInit",
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuStreamCreate",
    "cuMemAlloc_v2",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuLaunchHostFunc",
    "kernel",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventDestroy_v2",
    "cuStreamDestroy_v2",
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuCtxPopCurrent_v2",
)
"""Every call of the driver that an engine makes, but the release of the context."""


def small_graph() -> Graph:
    """Return an extractor of three features, the mean colour of a tile: quick to load."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["tiles"], ["pixels"], to=types.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["features"], axes=[1, 2], keepdims=0),
    ]
    tiles = helper.make_tensor_value_info("tiles", types.UINT8, ["n", 8, 8, 3])
    features = helper.make_tensor_value_info("features", types.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "mean", [tiles], [features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Graph(model.SerializeToString(), "mean.onnx of a test")


GRAPH = small_graph()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with plugged_in(monkeypatch) as plugged:
        yield plugged


@pytest.fixture
def backend(gpu: FakeGpu, tmp_path: Path) -> TensorRtBackend:
    return TensorRtBackend(EngineCache(tmp_path / "engines"))


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    loaded = load_model(open_bundle(DEMO), threads=1)
    yield loaded
    loaded.close()


def driver_named(name: str) -> Driver:
    try:
        return open_driver(name)
    except DependencyError:
        pytest.skip(f"{name} is not installed")


def tiles(count: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(60, 255, (count, 128, 128, 3), dtype=np.uint8)


def rows(network: Network, count: int) -> np.ndarray:
    return network.run({"tiles": np.full((count, 8, 8, 3), 7, dtype=np.uint8)})["features"]


# The device and its driver


def test_the_stand_in_is_found_as_a_jetsons_gpu(gpu: FakeGpu) -> None:
    device = find_device()
    assert device is not None
    assert (device.name, device.compute_capability, device.integrated) == ("Orin", "8.7", True)
    gpu.present(False)
    assert find_device() is None


@pytest.mark.parametrize("mapped", [False, True], ids=["copied", "mapped"])
@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_carries_data_there_and_back_and_gives_all_back(
    gpu: FakeGpu, name: str, mapped: bool
) -> None:
    driver = driver_named(name)
    driver.open()
    stream = driver.stream()
    if mapped:
        host, address = driver.mapped(4096)
        assert address
        host[:] = 7
    else:
        there, back, device = driver.pinned(4096), driver.pinned(4096), driver.allocate(4096)
        there[:] = np.arange(4096) % 251
        driver.copy_to_device(device, there, stream)
        driver.copy_to_host(back, device, stream)
        driver.synchronise(driver.mark(stream))
        assert np.array_equal(there, back)
    assert gpu.alive()["contexts"] == 1
    driver.close()
    driver.close()
    gpu.check()


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_that_fails_to_free_one_thing_frees_the_rest(gpu: FakeGpu, name: str) -> None:
    driver = driver_named(name)
    driver.open()
    driver.stream()
    driver.allocate(4096)
    driver.pinned(4096)
    gpu.fail("cuMemFreeHost:719;cuMemFree_v2:719")
    if name == "pycuda":  # it prints what it cannot free, and goes on
        driver.close()
    else:
        with pytest.raises(BackendLostError):
            driver.close()
    gpu.check()


def test_the_driver_is_checked_before_a_build(
    gpu: FakeGpu, backend: TensorRtBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.fail("cuDevicePrimaryCtxRetain:2:0:-1")
    with pytest.raises(BackendLostError, match=r"(?i)out.of.memory"):
        check_driver()
    shares: list[float] = []
    with pytest.raises(BackendLostError):
        backend.open(GRAPH, progress=shares.append)
    assert shares == []
    gpu.fail("")

    def no_package(name: str | None = None) -> Driver:
        raise DependencyError("Neither is installed.")

    monkeypatch.setattr("edge_mil.backends.tensorrt.backend.open_driver", no_package)
    with pytest.raises(DependencyError):
        backend.open(GRAPH, progress=shares.append)
    assert shares == []
    gpu.check()


# An engine


@pytest.mark.parametrize("shared", [True, False], ids=["integrated", "own memory"])
def test_an_engine_gives_the_features_of_its_graph_to_several_threads(
    gpu: FakeGpu, tmp_path: Path, model: Model, shared: bool
) -> None:
    gpu.integrated(shared)
    network = TensorRtBackend(EngineCache(tmp_path)).open(DEMO_GRAPH)
    wanted = {seed: model.extract(tiles(35, seed)) for seed in range(3)}
    found: dict[int, np.ndarray] = {}

    def ask(seed: int) -> None:
        found[seed] = network.run({"tiles": tiles(35, seed)})["features"]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed, features in wanted.items():
        assert np.abs(found[seed] - features).max() <= 1e-3 * np.abs(features).max()
    network.close()
    network.close()
    with pytest.raises(BackendLostError):
        network.run({"tiles": tiles(1)})
    gpu.check()


@pytest.mark.parametrize("shared", [True, False], ids=["integrated", "own memory"])
def test_an_error_of_any_call_is_told_and_leaves_nothing_alive(
    gpu: FakeGpu, tmp_path: Path, shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call fails once, at its first use and at a later one, and once for ever."""
    gpu.integrated(shared)
    backend = TensorRtBackend(EngineCache(tmp_path))
    backend.open(GRAPH).close()
    unused = set(DRIVER_CALLS)
    for call in DRIVER_CALLS:
        for fault in (f"{call}:{LAUNCH_FAILED}", f"{call}:{LAUNCH_FAILED}:1:1:sticky"):
            caplog.clear()
            before = gpu.calls
            gpu.fail(fault)
            told = _use(backend)
            gpu.fail("")
            if told or caplog.records:
                unused.discard(call)
            assert gpu.calls > before
            assert _nothing(gpu), f"{fault}: {gpu.alive()}"
            assert gpu.misuses() == [], fault
    # An integrated GPU has no memory of its own to copy to, another one maps nothing. TensorRT
    # frees its own memory without a word.
    copies = {"cuMemFree_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"}
    expected = copies if shared else {"cuMemHostGetDevicePointer_v2"}
    if isinstance(open_driver(), PycudaDriver):  # it prints what it cannot free, and goes on
        expected |= {"cuEventDestroy_v2", "cuStreamDestroy_v2", "cuMemFree_v2", "cuMemFreeHost"}
    assert unused <= expected
    network = backend.open(GRAPH)
    assert rows(network, 3).shape[0] == 3
    network.close()
    gpu.check()


def _use(backend: TensorRtBackend) -> bool:
    """Load an engine, run it twice and close it; return whether an error was raised."""
    try:
        network = backend.open(GRAPH)
    except UnavailableError:
        return True
    try:
        for _ in range(2):
            rows(network, 2)
    except BackendLostError:
        return True
    finally:
        network.close()
    return False


def _nothing(gpu: FakeGpu) -> bool:
    return not any(gpu.alive().values())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no-runtime", "failed while it loaded"),
        ("deserialize-none", "not compatible"),
        ("context-none", "for lack of memory"),
    ],
)
def test_an_engine_that_cannot_be_loaded_leaves_nothing_alive(
    gpu: FakeGpu, backend: TensorRtBackend, fault: str, words: str
) -> None:
    backend.build_ahead(GRAPH)
    gpu.fail_tensorrt(fault)
    with pytest.raises(EngineError, match=words) as refused:
        backend.open(GRAPH)
    # Even while the error, and with it the frames of the load, is still held.
    assert refused.value.__traceback__ is not None
    gpu.check()
    gpu.fail_tensorrt("")
    backend.open(GRAPH).close()


def test_memory_that_runs_out_while_loading_leaves_nothing_alive(
    gpu: FakeGpu, backend: TensorRtBackend
) -> None:
    backend.build_ahead(GRAPH)
    activations = 32 * (64 << 10)
    for limit in (1 << 10, activations + 10, activations + 2 * 32 * 192 + 100):
        gpu.memory(limit)
        with pytest.raises(UnavailableError, match=r"(?i)memory"):
            backend.open(GRAPH)
        gpu.check()


@pytest.mark.parametrize("fault", ["shape-false", "address-false", "execute-false"])
def test_a_run_that_tensorrt_refuses_is_a_lost_device(
    gpu: FakeGpu, backend: TensorRtBackend, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = backend.open(GRAPH)
    gpu.fail_tensorrt(fault)
    with pytest.raises(BackendLostError, match="TensorRT refused"):
        rows(network, 1)
    network.close()
    assert "TensorRT refused" in caplog.text
    gpu.check()


def test_a_precision_that_fails_is_gone_before_the_next_is_tried(
    gpu: FakeGpu, backend: TensorRtBackend, model: Model
) -> None:
    gpu.fail_tensorrt("wrong-numbers")
    with pytest.raises(EngineError, match="outside of the bundle's bound") as refused:
        select_engine(model, list_candidates(model.bundle, "tensorrt", "int8"), lambda _: backend)
    assert "fp32: it is outside" in str(refused.value)
    gpu.check()
    gpu.fail_tensorrt("")
    with pytest.raises(EngineError, match="engine clear forgets it"):
        backend.open(DEMO_GRAPH)


# Builds


@pytest.mark.parametrize("fault", ["build-killed@3", "build-memory@3", "build-crash@3"])
def test_a_build_that_is_killed_is_tried_again_with_less(
    gpu: FakeGpu, backend: TensorRtBackend, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.fail_tensorrt(fault)
    network = backend.open(GRAPH)
    assert "was built with optimisation level 2, batches of at most 16" in caplog.text
    # A batch of the extractor is larger than this engine's, which runs it in turn.
    assert rows(network, 32).shape[0] == 32
    network.close()
    ((_, header),) = backend.cache.engines()
    assert header.key["profile"] == [1, 8, 16]
    # The next start takes it as it is.
    shares: list[float] = []
    backend.open(GRAPH, progress=shares.append).close()
    assert shares == [1.0]
    gpu.check()


@pytest.mark.parametrize(
    ("fault", "words"),
    [("build-killed", "was killed"), ("build-memory", "the memory ran out"),
     ("build-raise", "nobody foresaw")],
)  # fmt: skip
def test_a_build_that_nothing_helps_is_forgotten_after_an_hour(
    gpu: FakeGpu,
    backend: TensorRtBackend,
    fault: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu.fail_tensorrt(fault)
    with pytest.raises(EngineError, match=words):
        backend.open(GRAPH)
    gpu.fail_tensorrt("")
    with pytest.raises(EngineError, match="tried again after an hour"):
        backend.open(GRAPH)
    later = time.time() + TRANSIENT_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    backend.open(GRAPH).close()
    assert list(backend.cache.failures()) == []
    gpu.check()


def test_a_build_over_its_time_asks_for_less_and_is_forgotten_too(
    gpu: FakeGpu, tmp_path: Path
) -> None:
    backend = TensorRtBackend(EngineCache(tmp_path), limits=BuildLimits(seconds=0.8))
    gpu.fail_tensorrt("build-hang")
    with pytest.raises(EngineError, match=r"took more than 0.8 s"):
        backend.open(GRAPH)
    ((_, failure),) = backend.cache.failures()
    assert failure.transient
    gpu.check()


@pytest.mark.parametrize(
    ("fault", "words"), [("build-none", "implementation"), ("parse-refused", "refuses the graph")]
)
def test_a_graph_that_tensorrt_refuses_is_not_built_again(
    gpu: FakeGpu, backend: TensorRtBackend, fault: str, words: str
) -> None:
    gpu.fail_tensorrt(fault)
    with pytest.raises(EngineError, match=words):
        backend.open(GRAPH)
    gpu.fail_tensorrt("")
    with pytest.raises(EngineError, match="engine clear forgets it"):
        backend.open(GRAPH)
    ((_, failure),) = backend.cache.failures()
    assert not failure.transient
    gpu.check()


def test_a_library_that_does_not_start_is_not_remembered(
    gpu: FakeGpu, backend: TensorRtBackend
) -> None:
    gpu.fail_tensorrt("no-builder")
    with pytest.raises(EngineError, match="does not start on this device"):
        backend.open(GRAPH)
    gpu.fail_tensorrt("")
    backend.open(GRAPH).close()
    gpu.check()


@pytest.mark.parametrize("damage", ["changed", "cut", "foreign", "crash"])
def test_a_damaged_file_of_timings_is_dropped_and_the_build_goes_on(
    gpu: FakeGpu, backend: TensorRtBackend, damage: str
) -> None:
    backend.open(GRAPH).close()
    (timings,) = backend.cache.root.glob("*.timings")
    whole = timings.read_bytes()
    for path in backend.cache.root.glob("*.engine"):
        path.unlink()
    if damage == "changed":
        timings.write_bytes(whole[:-1] + b"?")
    if damage == "cut":
        timings.write_bytes(whole[:10])
    if damage == "foreign":
        gpu.fail_tensorrt("timings-foreign")
    if damage == "crash":
        gpu.fail_tensorrt("timings-crash")
    backend.open(GRAPH).close()
    assert timings.read_bytes() == whole
    gpu.check()


def test_a_folder_that_is_full_is_told_and_not_remembered(
    gpu: FakeGpu, backend: TensorRtBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tempfile.TemporaryFile", full)
        with pytest.raises(EngineError, match="No space left on device"):
            backend.open(GRAPH)
    backend.open(GRAPH).close()
    gpu.check()


def test_a_device_that_is_lost_in_the_middle_costs_no_tile(
    gpu: FakeGpu, backend: TensorRtBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    model = load_model(open_bundle(DEMO), threads=1)
    wanted = model.extract(tiles(4))
    selection = select_engine(
        model, list_candidates(model.bundle, "tensorrt", "fp32"), lambda _: backend
    )
    assert model.extractor is not None
    model.extractor.switch(selection.runner)
    gpu.fail(f"kernel:{LAUNCH_FAILED}:0:1:sticky")
    assert np.array_equal(model.extract(tiles(4)), wanted)
    assert "fields go on with fp32, ONNX Runtime" in caplog.text
    model.close()
    gpu.fail("")
    gpu.check()
