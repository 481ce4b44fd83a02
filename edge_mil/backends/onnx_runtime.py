"""ONNX Runtime: the default on the CPU of every device; on a GPU by its providers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from edge_mil.backends.checks import check_arrays, check_not_cancelled
from edge_mil.errors import BackendLostError, BundleError, DependencyError
from edge_mil.protocols import Arrays, Backend, Graph, InputTypes, Network, Progress
from edge_mil.types import Float32Array

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
"""Backend, as users name it -> ONNX Runtime's provider."""

ERRORS_ONLY = 3
"""ONNX Runtime's log severity: warnings about a graph tell a user nothing."""
MAX_REASON_CHARS = 200


class OnnxRuntimeBackend(Backend):
    """Loads graphs into one of ONNX Runtime's providers.

    It loads from bytes: ONNX Runtime then reads no external data, so a graph cannot name files of
    this device. Graph optimisation is ALL: FP32 is 1.8 times slower at EXTENDED and INT8 4.9 times
    at BASIC. Spinning is off: it would keep a core busy that the camera and the server need, and
    gains at most 2 % (`docs/design/quantization-and-runtime.md`, "Runners on a CPU").
    """

    def __init__(
        self, name: str = "cpu", *, threads: int | None = None, engines: Path | None = None
    ) -> None:
        """Choose a provider.

        Args:
            name: A key of PROVIDERS.
            threads: Threads of one run on the CPU; None takes as many as there are cores.
            engines: Folder where the TensorRT provider keeps its engines; None keeps none.

        Raises:
            DependencyError: ONNX Runtime, or the provider, is not installed.
        """
        self.name = name
        self.threads = threads or available_cores()
        self._library, self._engines = _import(), engines
        provider, installed = PROVIDERS[name], self._library.get_available_providers()
        if provider not in installed:
            raise DependencyError(
                f"ONNX Runtime {self._library.__version__} is installed without its {provider}; "
                "run: pip install onnxruntime-gpu"
            )

    def open(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> Network:
        """Load a graph, which holds its precision; see `Backend.open`."""
        check_not_cancelled(graph, cancel)
        ort = self._library
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(graph.data, options, providers=self._providers())
        except Exception as error:  # ONNX Runtime's errors share no base class that it exports
            raise BundleError(
                f"ONNX Runtime {ort.__version__} cannot load {graph.label} ({first_line(error)}); "
                "export the bundle again, or update onnxruntime."
            ) from error
        provider = PROVIDERS[self.name]
        if provider not in session.get_providers():
            # ONNX Runtime takes the CPU silently when a CUDA library is missing, and is then slow.
            raise BundleError(
                f"ONNX Runtime {ort.__version__} could not start its {provider} for {graph.label}; "
                "use the backend cpu, and edge-mil doctor to see what the GPU lacks."
            )
        progress(1.0)
        return OnnxRuntimeNetwork(session, graph.label)

    def describe(self) -> str:
        version = self._library.__version__
        if self.name == "cpu":
            return f"ONNX Runtime {version} on the CPU, threads: {self.threads}"
        return f"ONNX Runtime {version} on the GPU ({PROVIDERS[self.name]})"

    def _providers(self) -> list[Any]:
        options: dict[str, str] = {}
        if self.name == "ort-tensorrt" and self._engines is not None:
            options = {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(self._engines),
                "trt_timing_cache_enable": "1",
            }
        return [(PROVIDERS[self.name], options)]


class OnnxRuntimeNetwork:
    """A graph in an ONNX Runtime session; any thread may run it, one run at a time is fastest."""

    def __init__(self, session: Any, label: str) -> None:
        self._session, self._label = session, label
        self._outputs = [output.name for output in session.get_outputs()]
        self._inputs = {
            i.name: (
                DTYPES.get(i.type, i.type),
                tuple(d if isinstance(d, int) else None for d in i.shape),
            )
            for i in session.get_inputs()
        }

    @property
    def inputs(self) -> InputTypes:
        return self._inputs

    def run(self, arrays: Arrays) -> dict[str, Float32Array]:
        check_arrays(self._label, self._inputs, arrays)
        session = self._session
        if session is None:
            raise BackendLostError(f"{self._label} is closed.")
        return dict(zip(self._outputs, session.run(None, dict(arrays)), strict=True))

    def close(self) -> None:
        self._session = None


def available_cores() -> int:
    """Return the cores that this process may use, which a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, cut short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:MAX_REASON_CHARS]


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            'ONNX Runtime is not installed; run: pip install "edge-mil[device]"'
        ) from error
    return onnxruntime
