"""TensorRT as a backend: an engine from the cache or built now, behind one owner thread."""

from __future__ import annotations

import functools
import threading

from edge_mil.backends.batching import BatchingNetwork
from edge_mil.backends.checks import check_not_cancelled
from edge_mil.backends.tensorrt.building.engine_builder import Engine, build_engine
from edge_mil.backends.tensorrt.building.ladder import list_recipes
from edge_mil.backends.tensorrt.building.supervisor import BuildLimits
from edge_mil.backends.tensorrt.device import Device, find_device
from edge_mil.backends.tensorrt.drivers.driver import open_driver
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.engine_file import EngineHeader
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.executor import EngineExecutor
from edge_mil.backends.tensorrt.library import Library, find_library
from edge_mil.errors import EngineError
from edge_mil.protocols import Backend, Graph, Network, Progress


class TensorRtBackend(Backend):
    """Builds engines for this device, keeps them, and runs them.

    Attributes:
        library: TensorRT or TensorRT-RTX.
        device: The GPU; None where there is none, and engines can only be built ahead.
        cache: Where engines are kept.
    """

    name = "tensorrt"

    def __init__(
        self,
        cache: EngineCache,
        *,
        library: Library | None = None,
        limits: BuildLimits | None = None,
    ) -> None:
        """Find the device, and the library where none is given.

        Raises:
            DependencyError: TensorRT is not installed.
        """
        self.library = library or find_library()
        self.device: Device | None = find_device()
        self.cache, self._limits = cache, limits

    @property
    def unavailable(self) -> str:
        return "" if self.device is not None else "this machine shows no NVIDIA GPU"

    def open(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> Network:
        """Build the engine where the cache lacks it, and load it; see `Backend.open`."""
        if self.device is None:
            raise EngineError(f"TensorRT cannot run {graph.label} here: {self.unavailable}.")
        driver = open_driver()  # its package is missing now, and not after minutes of building
        engine = self._engine(graph, precision, progress, cancel)
        load = functools.partial(
            EngineExecutor,
            self.library,
            engine.plan,
            driver,
            graph.label,
            mapped=self.device.integrated,
        )
        network = BatchingNetwork(load, label=graph.label)
        progress(1.0)
        return network

    def build_ahead(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> tuple[EngineHeader, bool]:
        """Build the engine where the cache lacks it, and load nothing: TensorRT's own.

        TensorRT-RTX does so on a machine without a GPU too; TensorRT needs the GPU that is to run
        the engine.

        Returns:
            The engine's header, and whether it was in the cache.

        Raises:
            EngineError: The engine cannot be built; the message says why.
        """
        engine = self._engine(graph, precision, progress, cancel)
        return engine.header, engine.from_cache

    def reject(self, graph: Graph, precision: str, reason: str) -> None:
        """Remove the engines, and remember the reason in the cache."""
        recipe = Recipe(graph, precision)
        keys = [found.key(self.library, self.device) for found, _ in list_recipes(recipe)]
        for key in keys:
            self.cache.remove(key)
        self.cache.remember_failure(keys[0], graph.label, reason)

    def describe(self) -> str:
        return f"{self.library.title} on {'no GPU' if self.device is None else self.device.name}"

    def _engine(
        self, graph: Graph, precision: str, progress: Progress, cancel: threading.Event | None
    ) -> Engine:
        check_not_cancelled(graph, cancel)
        return build_engine(
            Recipe(graph, precision),
            self.library,
            self.device,
            self.cache,
            limits=self._limits,
            progress=progress,
            cancel=cancel,
        )
