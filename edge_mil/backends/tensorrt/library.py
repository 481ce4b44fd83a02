"""The one place that imports TensorRT: `tensorrt` or `tensorrt_rtx`, told apart by features.

Both have nearly one API from 10.3 (JetPack 6) to 11.x. A difference is found by a feature of the
module, never by its version, and nothing that a later release removed is used: precision comes
from the graph alone, by strong typing (`docs/design/quantization-and-runtime.md`, "TensorRT").
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_mil.errors import DependencyError

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
LIBRARIES = (TENSORRT, TENSORRT_RTX)
"""In the order of preference: the first is faster where both are installed."""

TITLES = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}


@dataclass(frozen=True, slots=True)
class Library:
    """An imported TensorRT.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx".
        version: The module's own.
        module: The imported module.
    """

    name: str
    version: str
    module: Any

    @property
    def title(self) -> str:
        """Name and version, as "TensorRT-RTX 1.7.1"."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def builds_ahead(self) -> bool:
        """Whether it builds without a device: TensorRT-RTX compiles its kernels where it runs."""
        return self.name == TENSORRT_RTX

    @property
    def has_timing_cache(self) -> bool:
        """Whether a cache of timings makes builds faster; TensorRT-RTX times nothing."""
        return self.name == TENSORRT and hasattr(self.module, "ITimingCache")

    @property
    def has_progress(self) -> bool:
        """Whether the builder reports its progress."""
        return hasattr(self.module, "IProgressMonitor")

    def network_flags(self) -> int:
        """Return the flags of a strongly typed network: needed in 10.x, always on in 11."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def logger(self, on_error: Callable[[str], None]) -> Any:
        """Return a logger for TensorRT that calls `on_error` with each error message."""
        return _logger_class(self.module)(on_error)


def find_library(name: str | None = None) -> Library:
    """Import TensorRT.

    Args:
        name: One of LIBRARIES; None takes the first that is installed.

    Raises:
        DependencyError: TensorRT is not installed, or cannot be loaded.
    """
    broken = ""
    for wanted in LIBRARIES if name is None else (name,):
        try:
            module = importlib.import_module(wanted)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # its shared libraries are missing, or do not fit the driver
            why = (str(error).splitlines() or [type(error).__name__])[0]
            broken = f" ({wanted} is installed but does not load: {why})"
            continue
        return Library(wanted, str(module.__version__), module)
    raise DependencyError(
        f"TensorRT is not installed{broken}; a Jetson has it with JetPack (apt install "
        'python3-libnvinfer), a PC with an RTX GPU by: pip install "edge-mil[tensorrt-rtx]".'
    )


def _logger_class(module: Any) -> type:
    class Logger(module.ILogger):  # type: ignore[misc] # the base is only known when it runs
        def __init__(self, on_error: Callable[[str], None]) -> None:
            module.ILogger.__init__(self)
            self._on_error = on_error

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                self._on_error(message)

    return Logger
