"""Run exported networks: a verified ONNX graph and a precision go in, a `Network` comes out.

Each backend is one file or folder that imports its library where it is first used: `onnx_runtime`
(on the CPU, and on a GPU by its providers), `open_vino`, `tensorrt/`. `batching` turns an executor
that one thread owns (`executor`) into a network for many threads, through `request_queue`;
`checks` holds what every backend checks alike.
"""

from __future__ import annotations

from pathlib import Path

from edge_mil.errors import UsageError
from edge_mil.protocols import Backend

__all__ = ["BACKENDS", "ENGINES_FOLDER", "open_backend"]

BACKENDS = ("cpu", "openvino", "cuda", "ort-tensorrt", "tensorrt")
"""Backends that a user can name: ONNX Runtime on the CPU, OpenVINO on it, ONNX Runtime's CUDA and
TensorRT providers, TensorRT (or TensorRT for RTX) itself."""

ENGINES_FOLDER = "engines"
"""Folder under the state directory where engines are kept."""


def open_backend(
    name: str = "cpu", *, threads: int | None = None, engines: Path | None = None
) -> Backend:
    """Return a backend by the name that users give it.

    Args:
        name: One of BACKENDS.
        threads: Threads of one run on the CPU; None takes as many as there are cores.
        engines: Folder where TensorRT keeps its engines.

    Raises:
        UsageError: There is no such backend, or TensorRT was given no folder.
        EngineError: The folder cannot be used.
        DependencyError: The backend's library is not installed.
    """
    if name in ("cpu", "cuda", "ort-tensorrt"):
        from edge_mil.backends.onnx_runtime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(name, threads=threads, engines=engines)
    if name == "openvino":
        from edge_mil.backends.open_vino import OpenVinoBackend

        return OpenVinoBackend(threads=threads)
    if name == "tensorrt":
        from edge_mil.backends.tensorrt.backend import TensorRtBackend
        from edge_mil.backends.tensorrt.engines.cache import EngineCache

        if engines is None:
            raise UsageError("TensorRT keeps its engines in a folder; name it (--state).")
        return TensorRtBackend(EngineCache(engines))
    raise UsageError(f"There is no backend {name!r}; name one of {', '.join(BACKENDS)}.")
