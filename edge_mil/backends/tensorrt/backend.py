"""TensorRT as a backend: an engine from the cache or built now, behind one owner thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_mil.backends.batching import BatchingNetwork, Executor
from edge_mil.backends.tensorrt.building.engine_builder import BuildLimits, build_engine
from edge_mil.backends.tensorrt.device import Device, find_device
from edge_mil.backends.tensorrt.drivers.driver import open_driver
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.executor import EngineExecutor
from edge_mil.backends.tensorrt.library import Library, find_library
from edge_mil.errors import EngineError
from edge_mil.protocols import Backend, Network


class TensorRtBackend(Backend):
    """Builds engines for this device, and runs them.

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
        """Find the library and the device.

        Raises:
            DependencyError: TensorRT is not installed.
        """
        self.library = library or find_library()
        self.device: Device | None = find_device()
        self.cache, self._limits = cache, limits

    def build(
        self,
        recipe: Recipe,
        *,
        on_progress: Callable[[float], None] = lambda share: None,
        cancelled: threading.Event | None = None,
    ) -> bytes:
        """Return the plan of a recipe, built if it must be.

        Raises:
            EngineError: It cannot be built; the message says why.
        """
        return build_engine(
            recipe,
            self.library,
            self.device,
            self.cache,
            limits=self._limits,
            on_progress=on_progress,
            cancelled=cancelled,
        )[1]

    def open(self, plan: bytes, label: str) -> Network:
        """Load a plan onto the device.

        Raises:
            EngineError: There is no device, or TensorRT does not take the plan.
            BackendLostError: The device does not answer.
            DependencyError: Nothing is installed that talks to the device.
        """
        if self.device is None:
            raise EngineError(
                f"The engine of {label} cannot run here: this machine shows no NVIDIA GPU."
            )
        driver = open_driver()

        def make() -> Executor:
            return EngineExecutor(self.library, plan, driver, label)

        return BatchingNetwork(make, label=label)

    def load(self, model: bytes, *, label: str) -> Network:
        """Build and load an FP32 graph; see `Backend.load`."""
        return self.open(self.build(Recipe(model, label, "fp32")), label)

    def describe(self) -> str:
        """Say what runs where."""
        where = "no GPU" if self.device is None else self.device.name
        return f"{self.library.title} on {where}"
