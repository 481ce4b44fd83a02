"""The table of variants: the graph of a bundle that each backend runs for a precision."""

from __future__ import annotations

from dataclasses import dataclass

from edge_mil.backends import BACKENDS
from edge_mil.bundle import Bundle
from edge_mil.errors import BundleError, UsageError

PRECISIONS = ("fp32", "fp16", "int8")
"""What an extractor can compute in."""


@dataclass(frozen=True, slots=True)
class RunnerVariant:
    """A backend and a precision that a bundle's extractor could run in.

    Attributes:
        backend: One of BACKENDS.
        precision: One of PRECISIONS.
        graph: Key of `ExtractorSpec.graphs`: what the backend loads.
    """

    backend: str
    precision: str
    graph: str

    def __str__(self) -> str:
        return f"{self.backend} {self.graph}"


VARIANTS = tuple(
    RunnerVariant(backend, precision, graph)
    for backend, precision, graph in (
        ("cpu", "fp32", "fp32"),
        ("cpu", "int8", "int8-cpu"),
        ("openvino", "fp32", "fp32"),
        ("openvino", "int8", "int8-cpu"),
        ("openvino", "int8", "int8-trt"),
        ("cuda", "fp32", "fp32"),
        ("cuda", "fp16", "fp16"),
        ("ort-tensorrt", "fp32", "fp32"),
        ("ort-tensorrt", "fp16", "fp16"),
        ("ort-tensorrt", "int8", "int8-trt"),
        ("tensorrt", "fp32", "fp32"),
        ("tensorrt", "fp16", "fp16"),
        ("tensorrt", "int8", "int8-trt"),
    )
)
"""Every variant worth running; where a backend has two of one precision, the first is the default.

Not here: ONNX Runtime's CPU is slower in the TensorRT dialect of INT8 than in FP32, its CUDA
provider runs Q/DQ graphs slowly, and TensorRT refuses the CPU dialect
(`docs/design/quantization-and-runtime.md`, "Which runner works on what")."""


def list_variants(bundle: Bundle) -> list[RunnerVariant]:
    """Return the variants that the bundle has graphs for, whether this device runs them or not."""
    spec = bundle.manifest.extractor
    graphs = {} if spec is None else spec.graphs
    return [variant for variant in VARIANTS if variant.graph in graphs]


def named_variants(backend: str, precision: str) -> list[RunnerVariant]:
    """Return the variants that a backend and a precision name, the default first.

    Raises:
        UsageError: There is no such backend or precision, or the backend does not run it.
    """
    if backend not in BACKENDS:
        raise UsageError(f"There is no backend {backend!r}; name one of {', '.join(BACKENDS)}.")
    if precision not in PRECISIONS:
        raise UsageError(f"There is no precision {precision!r}; name fp32, fp16 or int8.")
    of_backend = [variant for variant in VARIANTS if variant.backend == backend]
    named = [variant for variant in of_backend if variant.precision == precision]
    if not named:
        known = dict.fromkeys(variant.precision for variant in of_backend)
        raise UsageError(
            f"The backend {backend} does not run {precision}; it runs {', '.join(known)}."
        )
    return named


def find_variant(bundle: Bundle, backend: str, precision: str) -> RunnerVariant:
    """Return the variant of a bundle that a backend and a precision name.

    Raises:
        UsageError: There is no such backend or precision, or the backend does not run it.
        BundleError: The bundle lacks the graph.
    """
    available = list_variants(bundle)
    for variant in named_variants(backend, precision):
        if variant in available:
            return variant
    raise BundleError(
        f"{bundle.manifest.name} has no {precision} extractor for the backend {backend}; use "
        "--precision fp32, or export it with --precision fp32,int8 --calibration DIR."
    )
