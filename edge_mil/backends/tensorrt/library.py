"""The one place that imports TensorRT: `tensorrt` or `tensorrt_rtx`, told apart by features.

Both have nearly one API from 10.3 (JetPack 6) to 11.x. What differs is asked of the module itself,
never of its version, and nothing that a later release removed is named here (`runtime.md`,
section 5): precision comes from the graph alone, by strong typing.
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
        name: "tensorrt" or "tensorrt_rtx", as it is imported.
        version: As it says itself.
        module: The module.
    """

    name: str
    version: str
    module: Any

    @property
    def title(self) -> str:
        """For people: "TensorRT-RTX 1.7.1"."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def builds_ahead(self) -> bool:
        """Whether it builds on a machine without a device: its kernels are made where it runs."""
        return self.name == TENSORRT_RTX

    @property
    def has_timing_cache(self) -> bool:
        """Whether builds go faster by a cache of timings; TensorRT-RTX times nothing."""
        return self.name == TENSORRT and hasattr(self.module, "ITimingCache")

    @property
    def has_progress(self) -> bool:
        """Whether the builder tells how far it is."""
        return hasattr(self.module, "IProgressMonitor")

    def network_flags(self) -> int:
        """Return the flags of a strongly typed network: asked for in 10.x, always so in 11."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def logger(self, said: Callable[[str], None]) -> Any:
        """Return a logger that hands on each error, one line at a time."""
        return _logger_class(self.module)(said)


def find_library(name: str | None = None) -> Library:
    """Import TensorRT.

    Args:
        name: Which one; None takes the first of LIBRARIES that is installed.

    Raises:
        DependencyError: It is not installed, or cannot be loaded.
    """
    broken = ""
    for wanted in LIBRARIES if name is None else (name,):
        try:
            module = importlib.import_module(wanted)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:  # its shared libraries are missing or do not fit
            broken = f" ({wanted} is installed but does not load: {str(error).splitlines()[0]})"
            continue
        return Library(wanted, str(module.__version__), module)
    raise DependencyError(
        f"TensorRT is not installed{broken}; a Jetson has it with JetPack (apt install "
        'python3-libnvinfer), a PC with an RTX GPU by: pip install "edge-mil[tensorrt-rtx]".'
    )


def _logger_class(module: Any) -> type:
    class Logger(module.ILogger):  # type: ignore[misc] # the base is only known when it runs
        def __init__(self, said: Callable[[str], None]) -> None:
            module.ILogger.__init__(self)
            self._said = said

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                self._said(message)

    return Logger
