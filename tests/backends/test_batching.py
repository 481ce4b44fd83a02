"""The owner thread and its batches, with ONNX Runtime as the executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from small_bundle import FEATURES, extractor_graph

from edge_mil.backends.batching import BatchingNetwork
from edge_mil.backends.onnx_runtime import OnnxRuntimeBackend
from edge_mil.errors import BackendLostError, EngineError, FrameError
from edge_mil.protocols import Arrays, Graph, Network
from edge_mil.testing.backend import NetworkExecutor
from edge_mil.types import Float32Array, UInt8Array

PX = 16


class CountingExecutor(NetworkExecutor):
    """ONNX Runtime, and a note of each batch: its rows and the thread that ran it."""

    slots = 2

    def __init__(self, network: Network, max_batch: int = 8) -> None:
        super().__init__(network, max_batch)
        self.batches: list[tuple[int, int]] = []
        self.pause_s, self.break_at, self.closed = 0.0, -1, 0

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Note the batch."""
        super().start(slot, parts)
        self.batches.append((sum(len(p["tiles"]) for p in parts), threading.get_ident()))

    def finish(self, slot: int) -> dict[str, Float32Array]:
        """Be slow, or lost, as the test wants it."""
        time.sleep(self.pause_s)
        if len(self.batches) > self.break_at >= 0:
            raise BackendLostError("The device went away.")
        return super().finish(slot)

    def close(self) -> None:
        """Note the thread."""
        super().close()
        self.closed = threading.get_ident()


def tiles(count: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (count, PX, PX, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def direct() -> Network:
    graph = extractor_graph(np.random.default_rng(0), PX)
    return OnnxRuntimeBackend(threads=1).open(Graph(graph, "x"))


@pytest.fixture
def executor() -> CountingExecutor:
    graph = extractor_graph(np.random.default_rng(0), PX)
    return CountingExecutor(OnnxRuntimeBackend(threads=1).open(Graph(graph, "x")))


@pytest.fixture
def network(executor: CountingExecutor) -> Iterator[BatchingNetwork]:
    made = BatchingNetwork(lambda: executor, label="x", deadline_s=0.2)
    yield made
    made.close()


def features(network: Network, given: UInt8Array) -> Float32Array:
    return network.run({"tiles": given})["features"]


@pytest.mark.parametrize("count", [1, 8, 9, 30])
def test_any_number_of_rows_gives_what_the_network_gives(
    network: BatchingNetwork, direct: Network, count: int
) -> None:
    found = features(network, tiles(count))
    assert found.shape == (count, FEATURES)
    assert np.allclose(found, features(direct, tiles(count)), atol=1e-6)


def test_requests_of_several_threads_share_batches_and_each_gets_its_own_rows(
    network: BatchingNetwork, executor: CountingExecutor, direct: Network
) -> None:
    executor.pause_s = 0.05
    found: dict[int, Float32Array] = {}

    def ask(number: int) -> None:
        found[number] = features(network, tiles(2, number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(rows for rows, _ in executor.batches) == 24
    assert len(executor.batches) < 8
    for number, rows in found.items():
        assert np.allclose(rows, features(direct, tiles(2, number)), atol=1e-6)


def test_one_caller_alone_does_not_wait_for_the_deadline(network: BatchingNetwork) -> None:
    features(network, tiles(1))
    started = time.monotonic()
    features(network, tiles(1))
    assert time.monotonic() - started < 0.15


def test_one_thread_alone_touches_the_executor(
    network: BatchingNetwork, executor: CountingExecutor
) -> None:
    features(network, tiles(3))
    network.close()
    owners = {thread for _, thread in executor.batches} | {executor.closed}
    assert len(owners) == 1
    assert threading.get_ident() not in owners


def test_the_next_batch_starts_while_the_one_before_is_under_way(
    executor: CountingExecutor,
) -> None:
    network = BatchingNetwork(lambda: executor, label="x")
    seen: list[int] = []
    finish = executor.finish

    def finish_later(slot: int) -> dict[str, Float32Array]:
        seen.append(len(executor.batches))
        return finish(slot)

    executor.finish = finish_later  # type: ignore[method-assign]
    features(network, tiles(32))
    network.close()
    assert seen[0] == 2


def test_rows_of_another_shape_are_refused_before_they_reach_the_owner(
    network: BatchingNetwork, executor: CountingExecutor
) -> None:
    with pytest.raises(FrameError, match="wants tiles as uint8"):
        features(network, np.zeros((1, PX, PX + 1, 3), np.uint8))
    with pytest.raises(FrameError):
        network.run({})
    assert executor.batches == []


def test_a_lost_device_fails_all_that_wait_and_all_that_come(
    network: BatchingNetwork, executor: CountingExecutor
) -> None:
    executor.pause_s, executor.break_at = 0.05, 1
    errors: list[Exception] = []

    def ask(number: int) -> None:
        try:
            features(network, tiles(8, number))
        except BackendLostError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) >= 5
    with pytest.raises(BackendLostError, match="went away"):
        features(network, tiles(1))
    assert executor.closed


def test_a_fault_of_the_executor_is_a_lost_device_too(
    network: BatchingNetwork, executor: CountingExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    executor.max_batch = 8
    executor.inputs = {"other": ("uint8", (None,))}
    with pytest.raises(BackendLostError, match="failed"):
        features(network, tiles(1))
    assert "Traceback" in caplog.text


def test_an_executor_that_cannot_be_opened_is_the_callers_error() -> None:
    def refuse() -> CountingExecutor:
        raise EngineError("no device")

    with pytest.raises(EngineError, match="no device"):
        BatchingNetwork(refuse, label="x")


def test_close_answers_what_was_asked_and_refuses_what_comes_after(
    executor: CountingExecutor,
) -> None:
    executor.pause_s = 0.05
    network = BatchingNetwork(lambda: executor, label="x")
    found: list[Float32Array] = []
    thread = threading.Thread(target=lambda: found.append(features(network, tiles(30))))
    thread.start()
    while not executor.batches:
        time.sleep(0.005)
    time.sleep(0.02)
    network.close()
    thread.join(10)
    assert [len(rows) for rows in found] == [30]
    with pytest.raises(BackendLostError, match="closed"):
        features(network, tiles(1))


def test_a_full_queue_lets_callers_wait(executor: CountingExecutor) -> None:
    executor.pause_s = 0.01
    network = BatchingNetwork(lambda: executor, label="x", queue_size=1)
    assert features(network, tiles(8 * 9)).shape == (72, FEATURES)
    network.close()
