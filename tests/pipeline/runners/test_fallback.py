"""The first variant that loads and holds the bound is taken; every other one has its reason.

`tests/trt_build` tries the same with real engines.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mil.backends import open_backend
from edge_mil.bundle import open_bundle
from edge_mil.errors import EngineError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.runners.fallback import list_candidates, select_engine
from edge_mil.pipeline.runners.variants import RunnerVariant, find_variant
from edge_mil.protocols import Backend, Graph, Network, Progress
from edge_mil.testing.backend import WaitingBackend

DEMO = Path(__file__).parents[3] / "edge_mil" / "demo" / "bundle"


class MakeBelieve(WaitingBackend):
    """Runs some graphs in ONNX Runtime and answers others with made-up features."""

    def __init__(self, right: tuple[str, ...] = (), unavailable: str = "") -> None:
        super().__init__(0.0)
        self._right, self._unavailable = right, unavailable
        self.opened: list[str] = []
        self.rejected: list[tuple[str, str]] = []

    @property
    def unavailable(self) -> str:
        return self._unavailable

    def open(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> Network:
        """Load a graph, rightly or wrongly."""
        self.opened.append(precision)
        if self._unavailable:
            raise EngineError(f"{graph.label} cannot run: {self._unavailable}.")
        backend = open_backend("cpu", threads=1) if precision in self._right else super()
        return backend.open(graph, precision, progress=progress, cancel=cancel)

    def reject(self, graph: Graph, precision: str, reason: str) -> None:
        """Note what is rejected."""
        self.rejected.append((graph.label, reason))


@pytest.fixture
def model() -> Iterator[Model]:
    loaded = load_model(open_bundle(DEMO), threads=1)
    yield loaded
    loaded.close()


def chain(model: Model) -> list[RunnerVariant]:
    return list_candidates(model.bundle, "tensorrt", "int8")


def test_the_first_that_holds_is_taken(model: Model) -> None:
    backend = MakeBelieve(right=("int8",))
    shares: list[float] = []
    selection = select_engine(model, chain(model), lambda _: backend, progress=shares.append)
    assert selection.runner.precision == "int8"
    assert selection.check is not None
    assert selection.check.holds
    assert (selection.missed, backend.opened, backend.rejected) == ("", ["int8"], [])
    assert shares == [1.0]
    selection.runner.close()


def test_one_outside_of_the_bound_is_rejected_and_the_next_is_taken(model: Model) -> None:
    backend = MakeBelieve(right=("fp32",))
    selection = select_engine(model, chain(model), lambda _: backend)
    assert selection.runner.precision == "fp32"
    assert selection.missed.startswith(
        "fp32 in place of int8 (int8: it is outside of the bundle's bound: on 16 generated tiles"
    )
    assert selection.missed.endswith("; fp16: the bundle has none)")
    ((label, reason),) = backend.rejected
    assert label == "extractor.int8.trt.onnx of demo-painted-tissue"
    assert reason in selection.missed
    selection.runner.close()


def test_where_none_holds_one_sentence_has_every_reason(model: Model) -> None:
    backend = MakeBelieve()
    with pytest.raises(EngineError) as refused:
        select_engine(model, chain(model), lambda _: backend)
    text = str(refused.value)
    assert text.startswith("demo-painted-tissue cannot run on tensorrt here (int8: it is outside")
    assert "; fp16: the bundle has none; fp32: it is outside" in text
    assert len(backend.rejected) == 2


def test_a_backend_that_cannot_run_here_is_tried_once(model: Model) -> None:
    backend = MakeBelieve(unavailable="this machine shows no NVIDIA GPU")
    with pytest.raises(EngineError, match="no NVIDIA GPU"):
        select_engine(model, chain(model), lambda _: backend)
    assert backend.opened == ["int8"]


def test_a_cancelled_selection_tries_no_further_variant(model: Model) -> None:
    backend, cancel = MakeBelieve(), threading.Event()
    cancel.set()
    with pytest.raises(EngineError, match="cancelled"):
        select_engine(model, chain(model), lambda _: backend, cancel=cancel)
    assert backend.opened == ["int8"]


def test_the_runner_that_serves_already_is_taken_as_it_is(model: Model) -> None:
    def no_backend(name: str) -> Backend:
        raise AssertionError(name)

    first = find_variant(model.bundle, "cpu", "fp32")
    selection = select_engine(model, [first], no_backend)
    assert model.extractor is not None
    assert selection.runner is model.extractor.first
    assert selection.check is None
