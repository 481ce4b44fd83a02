"""Run an exported network: one file or folder for each library."""

from __future__ import annotations

from edge_mil.errors import NotThereYetError, UsageError
from edge_mil.protocols import Backend

__all__ = ["BACKENDS", "open_backend"]

BACKENDS = ("cpu", "tensorrt")
"""Backends that a user can name; those that are not there yet say so when they are asked for."""


def open_backend(name: str = "cpu", *, threads: int | None = None) -> Backend:
    """Return a backend by the name that users give it.

    Args:
        name: One of BACKENDS.
        threads: Threads of one run; None takes as many as there are cores.

    Raises:
        NotThereYetError: The backend belongs to a later release.
        UsageError: There is no such backend.
        DependencyError: Its library is not installed.
    """
    if name == "cpu":
        from edge_mil.backends.onnx_runtime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(threads=threads)
    if name == "tensorrt":
        raise NotThereYetError(
            "The TensorRT backend is not there yet: it comes with the Jetson release. "
            "Use --backend cpu."
        )
    raise UsageError(f"There is no backend {name!r}; name one of {', '.join(BACKENDS)}.")
