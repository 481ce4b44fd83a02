"""From INT8 to FP16 to FP32 to ONNX Runtime, with real engine files and real failing builds.

No engine can run here, so ONNX Runtime runs the graph in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from demo_graphs import DEMO

from edge_mil.backends.batching import BatchingNetwork
from edge_mil.backends.onnx_runtime import OnnxRuntimeBackend
from edge_mil.backends.tensorrt.backend import TensorRtBackend
from edge_mil.backends.tensorrt.building.supervisor import BuildLimits
from edge_mil.backends.tensorrt.device import find_device
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.library import Library
from edge_mil.bundle import Bundle, open_bundle, write_bundle
from edge_mil.errors import EngineError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.runners.fallback import EngineSelection, list_candidates, select_engine
from edge_mil.protocols import Graph, Network, Progress
from edge_mil.testing.backend import NetworkExecutor
from edge_mil.types import Float32Array

pytestmark = [
    pytest.mark.trt_build,
    pytest.mark.skipif(find_device() is not None, reason="this machine has a GPU"),
]


class StandIn(TensorRtBackend):
    """Builds real engines; runs their graphs in ONNX Runtime, since there is no GPU."""

    unavailable = ""
    run: Callable[[Graph], Network]

    def open(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> Network:
        """Build the engine, and load its graph."""
        self.build_ahead(graph, precision, progress=progress, cancel=cancel)
        return self.run(graph)


def select(
    model: Model,
    backend: TensorRtBackend,
    precision: str = "int8",
    progress: Progress = lambda share: None,
) -> EngineSelection:
    variants = list_candidates(model.bundle, "tensorrt", precision)
    return select_engine(model, variants, lambda _: backend, progress=progress)


def bundle_with(folder: Path, **graphs: str) -> Bundle:
    """Return the demo bundle with other files under the names of its graphs."""
    demo = open_bundle(DEMO)
    files = {name: demo.read(name) for name in demo.manifest.files}
    files |= {name: demo.read(other) for name, other in graphs.items()}
    return write_bundle(demo.manifest, files, folder)


@pytest.fixture
def demo() -> Iterator[Model]:
    made = load_model(open_bundle(DEMO), threads=1)
    yield made
    made.close()


@pytest.fixture
def stand_in(library: Library, cache: EngineCache) -> StandIn:
    made = StandIn(cache, library=library)
    made.run = OnnxRuntimeBackend(threads=1).open
    return made


def test_an_engine_that_holds_the_bound_is_taken_as_it_was_wanted(
    demo: Model, stand_in: StandIn
) -> None:
    shares: list[float] = []
    made = select(demo, stand_in, progress=shares.append)
    assert (str(made.runner.variant), made.missed) == ("tensorrt int8-trt", "")
    assert made.check is not None
    assert made.check.holds
    assert shares[-1] == 1.0
    again: list[float] = []
    select(demo, stand_in, progress=again.append)
    assert again == []


def test_a_refused_graph_falls_back_to_the_next_and_one_sentence_says_why(
    tmp_path: Path, stand_in: StandIn
) -> None:
    wrong = bundle_with(tmp_path / "b", **{"extractor.int8.trt.onnx": "extractor.int8.cpu.onnx"})
    model = load_model(wrong, threads=1)
    made = select(model, stand_in)
    model.close()
    assert made.runner.precision == "fp32"
    assert made.missed.startswith("fp32 in place of int8 (int8: ")
    assert "Non-zero zero point is not supported" in made.missed
    assert "fp16: the bundle has none" in made.missed


def test_an_engine_outside_of_the_bound_is_removed_and_the_next_is_taken(
    demo: Model, stand_in: StandIn
) -> None:
    right = stand_in.run

    class Wrong(NetworkExecutor):
        def finish(self, slot: int) -> dict[str, Float32Array]:
            return {n: np.flip(a, axis=1).copy() for n, a in super().finish(slot).items()}

    def run(graph: Graph) -> Network:
        if "int8" not in graph.label:
            return right(graph)
        return BatchingNetwork(lambda: Wrong(right(graph), 32), label=graph.label)

    stand_in.run = run
    made = select(demo, stand_in)
    assert made.runner.precision == "fp32"
    assert "outside of the bundle's bound" in made.missed
    assert [header.key["precision"] for _, header in stand_in.cache.engines()] == ["fp32"]
    assert [failure.key["precision"] for _, failure in stand_in.cache.failures()] == ["int8"]
    again = select(demo, stand_in)
    assert "engine clear forgets it" in again.missed


def test_when_no_engine_can_be_built_all_reasons_are_one_sentence(
    demo: Model, library: Library, cache: EngineCache
) -> None:
    backend = StandIn(cache, library=library, limits=BuildLimits(seconds=0.1))
    with pytest.raises(EngineError) as refused:
        select(demo, backend)
    text = str(refused.value)
    assert text.count("took more than 0.1 s") == 2
    assert "fp16: the bundle has none" in text
    assert "\n" not in text


def test_without_a_gpu_nothing_is_built_to_be_run(
    demo: Model, library: Library, cache: EngineCache
) -> None:
    with pytest.raises(EngineError, match="this machine shows no NVIDIA GPU"):
        select(demo, TensorRtBackend(cache, library=library))
    assert list(cache.engines()) == []
