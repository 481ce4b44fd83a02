"""What every `Backend` and every `Network` must do, on whatever this machine has.

A backend that is missing here is skipped once, with the reason: its library, or a GPU.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_bundle import FEATURES, extractor_graph

from edge_mil.backends import BACKENDS, open_backend
from edge_mil.backends.batching import BatchingNetwork
from edge_mil.errors import (
    BackendLostError,
    BundleError,
    DependencyError,
    EngineError,
    FrameError,
)
from edge_mil.protocols import Arrays, Backend, Graph, Network
from edge_mil.testing.backend import NetworkExecutor, WaitingBackend
from edge_mil.types import Float32Array, UInt8Array

PX = 16
MAX_BATCH = 8
"""Of the executor behind `BatchingNetwork`: some batches below are larger."""
GRAPH = Graph(extractor_graph(np.random.default_rng(0), PX), "extractor.onnx of small")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""Kernels may differ with the size of the batch."""


WAITING, BATCHING = "waiting", "batching"


def open_any(name: str, engines: Path) -> Backend:
    if name == WAITING:
        return WaitingBackend(0.001)
    return open_backend("cpu" if name == BATCHING else name, threads=1, engines=engines)


def missing(name: str) -> str:
    """Return why a backend cannot run networks here; "" where it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return open_any(name, Path(folder)).unavailable
        except DependencyError as error:
            return str(error)


MISSING = {name: reason for name in BACKENDS if (reason := missing(name))}
HERE = [name for name in (*BACKENDS, WAITING) if name not in MISSING]


@pytest.fixture(params=HERE)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return open_any(request.param, tmp_path / "engines")


@pytest.fixture(params=[*HERE, BATCHING])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    opened = open_any(request.param, tmp_path / "engines").open(GRAPH)
    if request.param == BATCHING:
        executor = NetworkExecutor(opened, MAX_BATCH)
        opened = BatchingNetwork(lambda: executor, label=GRAPH.label)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", MISSING)
def test_a_backend_that_cannot_run_here_says_what_is_missing(name: str) -> None:
    assert re.search("pip install|no NVIDIA GPU", MISSING[name])
    pytest.skip(f"the contract was not tried on {name}: {MISSING[name]}")


def tiles(count: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (count, PX, PX, 3), dtype=np.uint8)


def features(network: Network, given: UInt8Array) -> Float32Array:
    return network.run({"tiles": given})["features"]


# Networks


def test_a_network_describes_its_inputs(network: Network) -> None:
    assert dict(network.inputs) == {"tiles": ("uint8", (None, PX, PX, 3))}


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"images": tiles(1)},
        {"tiles": tiles(1), "more": tiles(1)},
        {"tiles": tiles(1).astype(np.float32)},
        {"tiles": tiles(1)[0]},
        {"tiles": tiles(1)[:, :-1]},
    ],
    ids=["none", "another name", "one too many", "another dtype", "no batch", "another size"],
)
def test_arrays_that_do_not_fit_are_refused_by_name(network: Network, arrays: Arrays) -> None:
    with pytest.raises(FrameError, match=r"extractor\.onnx of small .*(tiles|more)"):
        network.run(arrays)
    assert features(network, tiles(1)).shape == (1, FEATURES)


@pytest.mark.parametrize("count", [1, 2, MAX_BATCH, 33])
def test_a_row_does_not_depend_on_its_batch(network: Network, count: int) -> None:
    found = features(network, tiles(count))
    assert (found.shape, found.dtype) == ((count, FEATURES), np.float32)
    rows = np.concatenate([features(network, tile[None]) for tile in tiles(count)])
    np.testing.assert_allclose(found, rows, **CLOSE)


def test_different_tiles_have_different_features(network: Network) -> None:
    found = features(network, tiles(4))
    assert len(np.unique(found, axis=0)) == 4


def test_a_view_that_is_not_contiguous_gives_what_its_copy_gives(network: Network) -> None:
    view = tiles(6)[::-2, :, ::-1]
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(features(network, view), features(network, view.copy()), **CLOSE)


def test_outputs_are_the_callers_own_and_inputs_stay_as_they_are(network: Network) -> None:
    given = tiles(3)
    first = features(network, given)
    kept = first.copy()
    second = features(network, tiles(3, seed=1))
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(features(network, tiles(3, seed=1)), second)
    assert np.array_equal(given, tiles(3))


def test_threads_get_the_features_of_their_own_tiles(network: Network) -> None:
    wanted = [features(network, tiles(3, seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda seed: features(network, tiles(3, seed)), range(12)))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_a_closed_network_runs_no_more_and_may_be_closed_again(network: Network) -> None:
    network.close()
    with pytest.raises(BackendLostError, match=r"extractor\.onnx of small is closed"):
        features(network, tiles(1))
    network.close()


# Backends


def test_a_backend_is_named_as_users_name_it(backend: Backend) -> None:
    assert backend.name in (*BACKENDS, WAITING)


def test_a_backend_says_in_words_what_runs_where(backend: Backend) -> None:
    words = backend.describe()
    assert len(words.split()) > 2
    assert "\n" not in words


def test_opening_reports_its_progress_up_to_1(backend: Backend) -> None:
    shares: list[float] = []
    backend.open(GRAPH, progress=shares.append).close()
    assert shares == sorted(shares)
    assert (min(shares) >= 0, shares[-1]) == (True, 1.0)


def test_opening_that_is_cancelled_before_it_begins_ends_at_once(backend: Backend) -> None:
    cancel = threading.Event()
    cancel.set()
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"extractor\.onnx of small was not loaded"):
        backend.open(GRAPH, cancel=cancel)
    assert time.monotonic() - started < 5


def test_bytes_that_are_no_graph_are_refused_in_one_sentence(backend: Backend) -> None:
    with pytest.raises((BundleError, EngineError)) as refused:
        backend.open(Graph(b"not a graph", "nonsense.onnx of small"))
    if backend.name != "tensorrt":  # whose builder refuses it, and remembers that
        assert refused.type is BundleError
    text = str(refused.value)
    assert "nonsense.onnx of small" in text
    assert text.endswith(".")
    assert "\n" not in text


def test_networks_of_one_backend_are_apart(backend: Backend) -> None:
    first, second = backend.open(GRAPH), backend.open(GRAPH)
    wanted = features(first, tiles(2))
    first.close()
    np.testing.assert_allclose(features(second, tiles(2)), wanted, **CLOSE)
    second.close()


def test_a_rejected_graph_is_remembered_where_something_is_kept(backend: Backend) -> None:
    backend.reject(GRAPH, "fp32", "it is outside of the bound")
    if backend.name == "tensorrt":
        with pytest.raises(EngineError, match="it is outside of the bound"):
            backend.open(GRAPH)
    else:
        backend.open(GRAPH).close()


def test_a_waiting_backend_takes_its_time_and_no_cpu() -> None:
    network = WaitingBackend(0.2).open(GRAPH)
    wall, cpu = time.monotonic(), time.process_time()
    features(network, tiles(8))
    assert time.monotonic() - wall >= 0.2
    assert time.process_time() - cpu < 0.1
    network.close()
