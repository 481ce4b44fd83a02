"""ONNX Runtime: on the CPU the embedded default of every device; on a GPU by its providers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.backends.inputs import check_arrays
from edge_mil.errors import BundleError, DependencyError
from edge_mil.protocols import Backend, Network
from edge_mil.types import Float32Array

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
"""Backend, as users name it -> ONNX Runtime's provider."""


class OnnxRuntimeBackend(Backend):
    """Loads graphs from verified bytes into one of ONNX Runtime's providers.

    From bytes, ONNX Runtime reads no external data, so a graph cannot name files of this device
    (`serving.md`, section 4). Graph optimisation is ALL: FP32 is 1.8 times slower at EXTENDED,
    INT8 4.9 times at BASIC (`runtime.md`, section 4). Spinning is off: it burns the core that
    the camera and the server need, and costs at most 2 %.
    """

    def __init__(
        self, name: str = "cpu", *, threads: int | None = None, engines: Path | None = None
    ) -> None:
        """Choose a provider.

        Args:
            name: A key of PROVIDERS.
            threads: Threads of one run on the CPU; None takes as many as there are cores.
            engines: Where the TensorRT provider keeps its engines; None keeps none.

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

    def load(self, model: bytes, *, label: str) -> Network:
        """Load a serialised ONNX model; see `Backend.load`."""
        ort = self._library
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(model, options, providers=self._providers())
        except Exception as error:  # ONNX Runtime's errors share no base class that it exports
            raise BundleError(
                f"ONNX Runtime {ort.__version__} cannot load {label} ({first_line(error)}); "
                "export the bundle again, or update onnxruntime."
            ) from error
        provider = PROVIDERS[self.name]
        if provider not in session.get_providers():
            # It falls back in silence when a CUDA library is missing, and is then slow.
            raise BundleError(
                f"ONNX Runtime {ort.__version__} could not start its {provider} for {label}; use "
                "the backend cpu, and let edge-mil doctor say what the GPU lacks."
            )
        return OnnxRuntimeNetwork(session, label)

    def describe(self) -> str:
        """Say what runs where."""
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
    """One loaded graph; runs from any thread, one at a time is fastest."""

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
    def inputs(self) -> Mapping[str, tuple[str, tuple[int | None, ...]]]:
        """Name of each input -> (numpy dtype name, shape); None is a dynamic axis."""
        return self._inputs

    def run(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Float32Array]:
        """Run once; see `Network.run`."""
        check_arrays(self._label, self._inputs, arrays)
        return dict(zip(self._outputs, self._session.run(None, dict(arrays)), strict=True))

    def close(self) -> None:
        """Let the session go."""
        self._session = None


def available_cores() -> int:
    """Return the cores that this process may use, which a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            'ONNX Runtime is not installed; run: pip install "edge-mil[device]"'
        ) from error
    return onnxruntime


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, cut short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
