"""Runners of an extractor, and the switch from one to another between two fields."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from edge_mil.bundle import Bundle
from edge_mil.errors import BackendLostError, BundleError
from edge_mil.pipeline.runners.variants import RunnerVariant
from edge_mil.protocols import Backend, Graph, Network, Progress
from edge_mil.types import Float32Array, UInt8Array

LOG = logging.getLogger("edge_mil.backends")

MAX_BATCH = 32
"""Tiles of one run; ONNX Runtime is as fast at 8 (`docs/design/quantization-and-runtime.md`,
"Runners on a CPU"), and an accelerator fills its batches."""


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """A loaded variant of an extractor.

    Attributes:
        network: Turns `tiles` into `features`.
        variant: Which backend runs which graph.
        description: What runs where, as "ONNX Runtime 1.23 on the CPU, threads: 2".
    """

    network: Network
    variant: RunnerVariant
    description: str

    @property
    def precision(self) -> str:
        """What it computes in: fp32, fp16 or int8."""
        return self.variant.precision

    @property
    def name(self) -> str:
        """Precision and description, as a session records them."""
        return f"{self.precision}, {self.description}"

    def features(self, tiles: UInt8Array) -> Float32Array:
        """Return the features (n, d), float32, of tiles (n, h, w, 3), RGB uint8, n > 0.

        Raises:
            FrameError: The tiles have another size or type.
            BackendLostError: The device failed, or the runner is closed.
        """
        parts = [
            self.network.run({"tiles": tiles[first : first + MAX_BATCH]})["features"]
            for first in range(0, len(tiles), MAX_BATCH)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        self.network.close()


def extractor_graph(bundle: Bundle, variant: RunnerVariant) -> Graph:
    """Return the graph that a variant loads.

    Raises:
        BundleError: The bundle lacks it, it was changed, or it did not travel with the bundle.
    """
    spec, name = bundle.manifest.extractor, bundle.manifest.name
    if spec is None or variant.graph not in spec.graphs:
        raise BundleError(f"{name} has no graph {variant.graph} to run.")
    file = spec.graphs[variant.graph]
    return Graph(bundle.read_graph(file), f"{file} of {name}")


def open_variant(
    bundle: Bundle,
    variant: RunnerVariant,
    backend: Backend,
    *,
    progress: Progress = lambda share: None,
    cancel: threading.Event | None = None,
) -> Runner:
    """Load a variant of a bundle's extractor; see `Backend.open` for `progress` and `cancel`.

    Raises:
        BundleError: The bundle lacks the graph, or the backend cannot run it.
        EngineError: The graph cannot be compiled or run on this device, or `cancel` is set.
        BackendLostError: The device does not answer.
        DependencyError: A package is not installed.
    """
    graph = extractor_graph(bundle, variant)
    network = backend.open(graph, variant.precision, progress=progress, cancel=cancel)
    return Runner(network, variant, backend.describe())


class _Slot:
    """A runner of an extractor, and the fields that it works on now."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.users, self.retired = runner, 0, False


class Extractor:
    """The extractor of one model: the current runner, and the first one to fall back to.

    One runner extracts a whole field. A switch takes effect with the next field; a runner that
    fails costs no field, since the first one extracts the same field again. From any thread.
    """

    def __init__(self, first: Runner) -> None:
        self._lock = threading.Lock()
        self._cpu = threading.Lock()
        self._slots = [_Slot(first)]

    @property
    def current(self) -> Runner:
        """The runner of the next field."""
        return self._slots[-1].runner

    @property
    def first(self) -> Runner:
        """The runner that stays loaded."""
        return self._slots[0].runner

    def features(self, tiles: UInt8Array) -> tuple[Float32Array, Runner]:
        """Return the features (n, d) of tiles (n, h, w, 3), n > 0, and the runner that made all.

        Raises:
            BackendLostError: The first runner failed too.
        """
        while True:
            try:
                with self._using() as runner, self._alone(runner):
                    return runner.features(tiles), runner
            except BackendLostError as error:
                if not self._fall_back(runner, error):
                    raise

    def switch(self, runner: Runner) -> None:
        """Run fields that start from now on with another runner, and close the one before.

        The first runner stays, to take over when this one fails; switching to it is allowed.
        """
        with self._lock:
            first, *replaced = self._slots
            self._slots = [first] if runner is first.runner else [first, _Slot(runner)]
        self._retire(replaced)

    def discard(self, runner: Runner) -> None:
        """Close a runner that was never switched to; the first one stays loaded."""
        if runner is not self.first:
            runner.close()

    def close(self) -> None:
        """Close every runner."""
        for slot in reversed(self._slots):
            slot.runner.close()

    @contextmanager
    def _using(self) -> Iterator[Runner]:
        with self._lock:
            slot = self._slots[-1]
            slot.users += 1
        try:
            yield slot.runner
        finally:
            with self._lock:
                slot.users -= 1
                last = slot.retired and slot.users == 0
            if last:
                slot.runner.close()

    def _alone(self, runner: Runner) -> AbstractContextManager[object]:
        """Return the lock of a runner on the CPU, where one field at a time is fastest."""
        return self._cpu if runner.variant.backend == "cpu" else nullcontext()

    def _fall_back(self, runner: Runner, error: BackendLostError) -> bool:
        """Go back to the first runner; return False where there is none behind the lost one."""
        with self._lock:
            lost = [slot for slot in self._slots[1:] if slot.runner is runner]
            if not lost:
                # Another field noticed the loss before this one, or the first runner is lost.
                return self.current is not runner
            self._slots = self._slots[:1]
        LOG.error("%s; fields go on with %s", str(error).rstrip("."), self.current.name)
        self._retire(lost)
        return True

    def _retire(self, slots: list[_Slot]) -> None:
        """Close runners as soon as they work on no field."""
        for slot in slots:
            with self._lock:
                slot.retired = True
                idle = slot.users == 0
            if idle:
                slot.runner.close()
