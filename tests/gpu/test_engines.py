"""Engines on a GPU: built, verified, compared with ONNX Runtime, run by several threads, closed.

So far they ran on the stand-in of `tests/fake_gpu` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from demo_graphs import DEMO

from edge_mil.backends import open_backend
from edge_mil.backends.tensorrt.backend import TensorRtBackend
from edge_mil.backends.tensorrt.device import find_device
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.library import find_library
from edge_mil.bundle import open_bundle
from edge_mil.errors import BackendLostError, DependencyError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.runners.fallback import list_candidates, select_engine
from edge_mil.pipeline.runners.runner import extractor_graph
from edge_mil.pipeline.runners.variants import RunnerVariant
from edge_mil.types import Float32Array, UInt8Array

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_device() is None, reason="this machine has no NVIDIA GPU"),
]


BOUNDS = {"fp32": 1e-3, "int8": 2e-2}
"""Length of the error as a share of the centred features: TF32 and the order of sums; and for INT8
a rounding of a few values to the next step."""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> TensorRtBackend:
    try:
        library = find_library()
    except DependencyError as error:
        pytest.skip(str(error))
    return TensorRtBackend(EngineCache(tmp_path_factory.mktemp("engines")), library=library)


@pytest.fixture
def model() -> Iterator[Model]:
    made = load_model(open_bundle(DEMO))
    yield made
    made.close()


def tiles(count: int, seed: int) -> UInt8Array:
    return np.random.default_rng(seed).integers(60, 255, (count, 128, 128, 3), dtype=np.uint8)


def same_graph_in_onnx_runtime(model: Model, variant: RunnerVariant) -> list[Float32Array]:
    """Return features of the very graph that TensorRT was given.

    Compared with FP32, an INT8 engine that makes no mistake is off by what INT8 itself moves.
    """
    network = open_backend("cpu").open(extractor_graph(model.bundle, variant))
    found = [network.run({"tiles": tiles(40, seed)})["features"] for seed in range(4)]
    network.close()
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_holds_the_bound_and_serves_several_threads(
    model: Model, backend: TensorRtBackend, precision: str, tmp_path: Path
) -> None:
    variants = list_candidates(model.bundle, "tensorrt", precision)
    made = select_engine(model, variants, lambda _: backend)
    assert made.missed == ""
    assert made.check is not None
    assert made.check.holds, made.check.sentence()
    assert model.extractor is not None
    before = model.extract(tiles(40, 0))
    wanted = same_graph_in_onnx_runtime(model, made.runner.variant)
    model.extractor.switch(made.runner)
    found: dict[int, Float32Array] = {}

    def ask(seed: int) -> None:
        found[seed] = model.extract(tiles(40, seed))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed, features in found.items():
        centred = wanted[seed] - wanted[seed].mean(axis=0)
        error = np.linalg.norm(features - wanted[seed]) / np.linalg.norm(centred)
        assert error <= BOUNDS[precision]
    made.runner.close()
    with pytest.raises(BackendLostError):
        made.runner.features(tiles(1, 0))
    assert np.array_equal(model.extract(tiles(40, 0)), before)
