"""ONNX Runtime on the CPU: the embedded default, on every device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.errors import BundleError, DependencyError, FrameError
from edge_mil.protocols import Backend, Network
from edge_mil.types import Float32Array

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}


class OnnxRuntimeBackend(Backend):
    """Loads graphs from verified bytes into ONNX Runtime's CPU provider.

    From bytes, ONNX Runtime reads no external data, so a graph cannot name files of this device
    (`serving.md`, section 4). Graph optimisation is ALL: FP32 is 1.8 times slower at EXTENDED,
    INT8 4.9 times at BASIC (`runtime.md`, section 4). Spinning is off: it burns the core that
    the camera and the server need, and costs at most 2 %.
    """

    name = "cpu"

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads or _cores()
        self._library = _import()

    def load(self, model: bytes, *, label: str) -> Network:
        """Load a serialised ONNX model; see `Backend.load`."""
        ort = self._library
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class that it exports
            raise BundleError(
                f"ONNX Runtime {ort.__version__} cannot load {label} ({_first_line(error)}); "
                "export the bundle again, or update onnxruntime."
            ) from error
        return OnnxRuntimeNetwork(session, label)

    def describe(self) -> str:
        """Say what runs where."""
        return f"ONNX Runtime {self._library.__version__} on the CPU, threads: {self.threads}"


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
        for name, (dtype, shape) in self._inputs.items():
            array = arrays.get(name)
            fits = (
                array is not None
                and array.dtype.name == dtype
                and array.ndim == len(shape)
                and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
            )
            if not fits:
                got = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise FrameError(f"{self._label} wants {name} as {dtype} {shape}, got {got}.")
        return dict(zip(self._outputs, self._session.run(None, dict(arrays)), strict=True))

    def close(self) -> None:
        """Let the session go."""
        self._session = None


def _cores() -> int:
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
