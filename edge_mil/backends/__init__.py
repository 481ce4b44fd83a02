"""Run an exported network: one file or folder for each library."""

from __future__ import annotations

from pathlib import Path

from edge_mil.errors import UsageError
from edge_mil.protocols import Backend

__all__ = ["BACKENDS", "open_backend"]

BACKENDS = ("cpu", "openvino", "cuda", "ort-tensorrt", "tensorrt")
"""Backends that a user can name: ONNX Runtime on the CPU, OpenVINO on it, ONNX Runtime's CUDA and
TensorRT providers, TensorRT (or TensorRT for RTX) itself."""


def open_backend(
    name: str = "cpu", *, threads: int | None = None, engines: Path | None = None
) -> Backend:
    """Return a backend by the name that users give it.

    Args:
        name: One of BACKENDS.
        threads: Threads of one run; None takes as many as there are cores.
        engines: Folder where TensorRT keeps its engines.

    Raises:
        UsageError: There is no such backend, or TensorRT was given no folder.
        EngineError: The folder cannot be used.
        DependencyError: Its library is not installed.
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
            raise UsageError("TensorRT keeps its engines; name the folder where.")
        return TensorRtBackend(EngineCache(engines))
    raise UsageError(f"There is no backend {name!r}; name one of {', '.join(BACKENDS)}.")
