"""Load a bundle's graphs into backends, and put a `Model` together."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.aggregators import Classifier, Parts, build_aggregator
from edge_mil.backends import BACKENDS, open_backend
from edge_mil.bundle import Bundle, read_arrays
from edge_mil.errors import UsageError
from edge_mil.pipeline.model import Model
from edge_mil.pipeline.runners.fallback import list_candidates, select_engine
from edge_mil.pipeline.runners.runner import open_variant
from edge_mil.pipeline.runners.variants import find_variant
from edge_mil.protocols import Aggregator, Graph, Network

LOG = logging.getLogger("edge_mil.pipeline")

ARRAYS = "arrays"
"""Role of `aggregator.npz` in `AggregatorSpec.graphs`; the other roles are graphs."""


def load_model(
    bundle: Bundle,
    *,
    backend: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    extractor: bool = True,
    engines: Path | None = None,
) -> Model:
    """Load a bundle's graphs.

    The head runs in FP32 on the CPU, whatever runs the extractor. The CPU also stays behind
    another backend, to take over when that one is lost, and is what its runner is verified with.

    Args:
        bundle: From `open_bundle`.
        backend: One of BACKENDS; TensorRT's engine is built first, where it must be.
        precision: fp32, fp16 (on a GPU only) or int8.
        threads: Threads of one run; None takes as many as there are cores.
        extractor: False leaves the extractor out: enough to score saved features.
        engines: Folder where engines are kept; TensorRT needs it.

    Raises:
        BundleError: The bundle lacks a graph, or the backend cannot run one.
        EngineError: The extractor cannot run on the backend within the bundle's bound.
        BackendLostError: The device does not answer.
        DependencyError: The backend's library is not installed.
        NotThereYetError: The head belongs to a later release.
        UsageError: There is no such backend or precision.
    """
    if backend not in BACKENDS:
        raise UsageError(f"There is no backend {backend!r}; name one of {', '.join(BACKENDS)}.")
    backends = functools.cache(functools.partial(open_backend, threads=threads, engines=engines))
    cpu = backends("cpu")
    first = None
    if extractor and bundle.manifest.extractor is not None:
        variant = find_variant(bundle, "cpu", precision if backend == "cpu" else "fp32")
        first = open_variant(bundle, variant, cpu)
    networks = {
        role: cpu.open(Graph(bundle.read_graph(file), f"{file} of {bundle.manifest.name}"))
        for role, file in bundle.manifest.aggregator.graphs.items()
        if role != ARRAYS
    }
    attend = networks.pop("attend", None)
    aggregator = _aggregator(bundle, networks)
    model = Model(bundle, first, attend, aggregator, threads=threads, head=cpu.describe())
    if model.extractor is not None and backend != "cpu":
        try:
            selection = select_engine(model, list_candidates(bundle, backend, precision), backends)
        except BaseException:
            model.close()
            raise
        if selection.missed:
            LOG.warning("%s: %s", bundle.manifest.name, selection.missed)
        model.extractor.switch(selection.runner)
    return model


def _aggregator(bundle: Bundle, networks: dict[str, Network]) -> Aggregator[Any]:
    """Return the pooling that the bundle names, with its graphs and arrays."""
    spec, task = bundle.manifest.aggregator, bundle.manifest.task
    classify = networks.pop("classify", None)
    survival = str(spec.options.get("survival", "nll"))
    head = Classifier(task.classes, task.probabilities, classify, task.kind, survival)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    if ARRAYS in spec.graphs:
        file = spec.graphs[ARRAYS]
        arrays = read_arrays(bundle.read(file), f"{file} of {bundle.manifest.name}")
    return build_aggregator(
        spec.pooling,
        Parts(
            spec.architecture,
            spec.options,
            spec.feature_dim,
            spec.value_dim,
            spec.channels,
            head,
            networks,
            arrays,
        ),
    )
