"""Stand-ins for backends and devices: a backend that only waits, and a device that breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from edge_mil.backends.checks import check_arrays, check_not_cancelled
from edge_mil.backends.onnx_runtime import OnnxRuntimeBackend
from edge_mil.errors import BackendLostError
from edge_mil.protocols import Arrays, Backend, Graph, InputTypes, Network, Progress
from edge_mil.types import Float32Array, Float64Array

SAMPLED_VALUES = 64
"""Values of a row that its made-up outputs depend on, at most."""


class WaitingBackend(Backend):
    """Loads any graph, and waits where a real backend would compute.

    A run takes a fixed time and no CPU, as on an accelerator, so that a test can tell what runs
    beside it. Outputs have the shapes that the graph declares and made-up numbers, which depend on
    their own row alone: any batch and any order gives the same.
    """

    name = "waiting"

    def __init__(self, seconds_per_run: float) -> None:
        """Choose how long each run takes, whatever its batch size.

        Raises:
            DependencyError: ONNX Runtime, which reads the graphs, is not installed.
        """
        self.seconds_per_run = seconds_per_run
        self._reader = OnnxRuntimeBackend(threads=1)

    def open(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> Network:
        """Learn a graph's inputs and outputs from one real run; see `Backend.open`."""
        check_not_cancelled(graph, cancel)
        network = self._reader.open(graph)
        row = {
            name: np.zeros((1, *(size or 1 for size in shape[1:])), dtype)
            for name, (dtype, shape) in network.inputs.items()
        }
        outputs = {name: array.shape[1:] for name, array in network.run(row).items()}
        network.close()
        progress(1.0)
        return WaitingNetwork(network.inputs, outputs, graph.label, self.seconds_per_run)

    def describe(self) -> str:
        return f"a stand-in that waits {self.seconds_per_run:g} s for each run"


class WaitingNetwork:
    """A network that waits, one run after the other, and returns made-up numbers."""

    def __init__(
        self,
        inputs: InputTypes,
        outputs: Mapping[str, tuple[int, ...]],
        label: str,
        seconds_per_run: float,
    ) -> None:
        """Take a name and the shape of one row for each output."""
        self._inputs, self._outputs, self._label = inputs, outputs, label
        self._seconds = seconds_per_run
        self._device = threading.Lock()
        self._closed = False

    @property
    def inputs(self) -> InputTypes:
        return self._inputs

    def run(self, arrays: Arrays) -> dict[str, Float32Array]:
        check_arrays(self._label, self._inputs, arrays)
        with self._device:
            if self._closed:
                raise BackendLostError(f"{self._label} is closed.")
            time.sleep(self._seconds)
        first = arrays[next(iter(self._inputs))]
        values = first.reshape(len(first), -1)
        sampled = values[:, :: max(1, values.shape[1] // SAMPLED_VALUES)].astype(np.float64)
        means = sampled.mean(axis=1)
        return {name: _numbers(means, shape) for name, shape in self._outputs.items()}

    def close(self) -> None:
        self._closed = True


class NetworkExecutor:
    """A network in a device's place: an `Executor` for `BatchingNetwork`."""

    slots = 1

    def __init__(self, network: Network, max_batch: int) -> None:
        self.inputs, self.max_batch = network.inputs, max_batch
        self._network = network
        self._batches: dict[int, Arrays] = {}

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        self._batches[slot] = {
            name: np.concatenate([part[name] for part in parts]) for name in self.inputs
        }

    def finish(self, slot: int) -> dict[str, Float32Array]:
        return self._network.run(self._batches.pop(slot))

    def close(self) -> None:
        self._network.close()


class BreakingExecutor(NetworkExecutor):
    """A device that is lost after some batches."""

    def __init__(self, network: Network, max_batch: int, batches: int) -> None:
        """Choose how many batches succeed before the device is lost."""
        super().__init__(network, max_batch)
        self._left = batches

    def finish(self, slot: int) -> dict[str, Float32Array]:
        self._left -= 1
        if self._left < 0:
            raise BackendLostError("The GPU fell off the bus.")
        return super().finish(slot)


def _numbers(means: Float64Array, shape: tuple[int, ...]) -> Float32Array:
    """Return numbers from -1 to 1, float32 (n, *shape), a function of each row's mean (n,)."""
    columns = np.arange(1, int(np.prod(shape)) + 1)
    numbers: Float64Array = np.cos(np.outer(means, columns))
    return numbers.reshape(len(means), *shape).astype(np.float32)
