"""Every way to run a bundle's extractor here: a backend, and the graph that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_mil.backends import open_backend
from edge_mil.bundle import Bundle
from edge_mil.errors import BundleError, EngineError, UsageError
from edge_mil.pipeline.runners.runner import Runner

PRECISION = {"fp32": "fp32", "fp16": "fp16", "int8-cpu": "int8", "int8-trt": "int8"}
"""Key of `ExtractorSpec.graphs` -> precision."""

GRAPHS = {
    "cpu": ("fp32", "int8-cpu"),
    "openvino": ("fp32", "int8-cpu", "int8-trt"),
    "cuda": ("fp32", "fp16"),
    "ort-tensorrt": ("fp32", "fp16", "int8-trt"),
    "tensorrt": ("fp32", "fp16", "int8-trt"),
}
"""Backend -> graphs worth running on it, the first of a precision being what it is named for.

ONNX Runtime's CPU is slower in the TensorRT dialect than in FP32, its CUDA provider runs Q/DQ
slowly, and TensorRT refuses the CPU dialect (`runtime.md`, sections 3, 4 and 6)."""


@dataclass(frozen=True, slots=True)
class RunnerVariant:
    """One way to run an extractor.

    Attributes:
        backend: A key of GRAPHS.
        graph: Key of `ExtractorSpec.graphs`.
    """

    backend: str
    graph: str

    @property
    def precision(self) -> str:
        """The precision of the graph: fp32, fp16 or int8."""
        return PRECISION[self.graph]

    def __str__(self) -> str:
        return f"{self.backend} {self.graph}"


def list_variants(bundle: Bundle) -> list[RunnerVariant]:
    """Return the ways that the bundle has graphs for, whether this device can run them or not."""
    spec = bundle.manifest.extractor
    graphs = {} if spec is None else spec.graphs
    return [RunnerVariant(b, g) for b, keys in GRAPHS.items() for g in keys if g in graphs]


def find_variant(bundle: Bundle, backend: str, precision: str) -> RunnerVariant:
    """Return the way that a backend runs a precision.

    Raises:
        UsageError: There is no such backend or precision, or the backend does not run it.
        BundleError: The bundle lacks the graph.
    """
    if backend not in GRAPHS:
        raise UsageError(f"There is no backend {backend!r}; name one of {', '.join(GRAPHS)}.")
    if precision not in PRECISION.values():
        raise UsageError(f"There is no precision {precision!r}; name fp32, fp16 or int8.")
    wanted = [g for g in GRAPHS[backend] if PRECISION[g] == precision]
    if not wanted:
        known = dict.fromkeys(PRECISION[g] for g in GRAPHS[backend])
        raise UsageError(
            f"The backend {backend} does not run {precision}; it runs {', '.join(known)}."
        )
    for way in list_variants(bundle):
        if way.backend == backend and way.precision == precision:
            return way
    raise BundleError(
        f"{bundle.manifest.name} has no {precision} extractor for the backend {backend}; use "
        "--precision fp32, or export it with --precision fp32,int8 --calibration DIR."
    )


def open_variant(
    bundle: Bundle, way: RunnerVariant, *, threads: int | None = None, engines: Path | None = None
) -> Runner:
    """Load the extractor one way; TensorRT's engine is built first where it must be.

    Args:
        bundle: Verified.
        way: One of `list_variants`.
        threads: Threads of one run on the CPU; None takes as many as there are cores.
        engines: Folder where engines are kept; TensorRT needs it.

    Raises:
        BundleError: The backend cannot run the graph, or it did not travel with the bundle.
        DependencyError: A package is missing.
        EngineError: The engine cannot be built or run here.
        BackendLostError: The device does not answer.
    """
    spec = bundle.manifest.extractor
    if spec is None or way.graph not in spec.graphs:
        raise BundleError(f"{bundle.manifest.name} has no graph {way.graph} to run.")
    file = spec.graphs[way.graph]
    label = f"{file} of {bundle.manifest.name}"
    data = bundle.read(file)
    backend = open_backend(way.backend, threads=threads, engines=engines)
    if way.backend != "tensorrt":
        network = backend.load(data, label=label)
        return Runner(network, way.precision, backend.describe(), on=way.backend)
    from edge_mil.backends.tensorrt.backend import TensorRtBackend
    from edge_mil.backends.tensorrt.engines.recipe import Recipe

    assert isinstance(backend, TensorRtBackend)
    if backend.device is None:
        raise EngineError("This machine shows no NVIDIA GPU, so no engine can run here.")
    plan = backend.build(Recipe(data, label, way.precision))
    return Runner(backend.open(plan, label), way.precision, backend.describe(), on=way.backend)
