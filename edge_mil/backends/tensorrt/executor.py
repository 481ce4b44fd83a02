"""Run an engine: two sets of pinned host buffers and one stream, with or without copies.

A GPU with memory of its own gets asynchronous copies. A GPU that shares the board's memory (Jetson)
reads and writes the pinned buffers where they lie.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.backends.tensorrt.drivers.driver import Driver
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import BackendLostError, EdgeMilError, EngineError
from edge_mil.protocols import Arrays, InputTypes
from edge_mil.types import Float32Array, UInt8Array

SLOTS = 2
"""While the device runs one batch, the host fills the other's buffers."""
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """An input or output: its rows, and for each slot a host buffer and its device address."""

    name: str
    dtype: npt.DTypeLike
    row: tuple[int, ...]
    row_bytes: int
    device: tuple[int, ...]
    host: tuple[UInt8Array, ...]


class EngineExecutor:
    """Runs one engine, always in the thread that made it; see `backends.executor.Executor`.

    The host's buffers are there twice, so that filling and reading overlap with the device's work.
    Copies go through one set of device memory: on one stream those of a batch follow the batch
    before.
    """

    slots = SLOTS

    def __init__(
        self, library: Library, plan: bytes, driver: Driver, label: str, *, mapped: bool = False
    ) -> None:
        """Load a verified plan; whatever fails, nothing stays on the device.

        Args:
            library: TensorRT.
            plan: Verified by the cache.
            driver: Not opened yet.
            label: Name of the graph in messages.
            mapped: Whether the GPU shares the host's memory, so that nothing is copied.

        Raises:
            EngineError: TensorRT does not take the plan, or an output is not float32.
            BackendLostError: There is no device, or it does not answer.
        """
        self._label, self._driver, self._mapped = label, driver, mapped
        self._errors: list[str] = []
        self._marks: dict[int, tuple[int, Any]] = {}
        self._inputs: list[_Tensor] = []
        self._outputs: list[_Tensor] = []
        self._context: Any = None
        self._engine: Any = None
        self._runtime: Any = None
        driver.open()
        try:
            self._load(library, plan)
        except EdgeMilError:
            self._give_back()
            raise
        except Exception as error:  # TensorRT raises what its binding makes of a null pointer
            self._give_back()
            raise EngineError(
                f"{library.title} failed while it loaded the engine of {label} "
                f"({type(error).__name__}: {error}; {self._last_error()})."
            ) from error

    def _load(self, library: Library, plan: bytes) -> None:
        # TensorRT's objects are kept in attributes alone: a local name would live on in the
        # traceback of an error, and free its object later, in a thread without the context.
        trt: Any = library.module
        self._logger = library.logger(self._errors.append)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{library.title} does not load the engine of {self._label} "
                f"({self._last_error()}); edge-mil engine clear removes it."
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{library.title} cannot run the engine of {self._label} here "
                f"({self._last_error()}), most likely for lack of memory.",
                transient=True,
            )
        self._stream = self._driver.stream()
        count = self._engine.num_io_tensors
        names = [str(self._engine.get_tensor_name(number)) for number in range(count)]
        inputs = [
            name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        ]
        self.max_batch = int(self._engine.get_tensor_profile_shape(inputs[0], 0)[2][0])
        for name in names:
            tensors = self._inputs if name in inputs else self._outputs
            tensors.append(self._tensor(trt, name))
        if any(tensor.dtype != np.float32 for tensor in self._outputs):
            raise EngineError(f"The engine of {self._label} gives no FP32 features.")
        self.inputs: InputTypes = {
            t.name: (np.dtype(t.dtype).name, (None, *t.row)) for t in self._inputs
        }

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Fill a slot's buffers, and queue its copies and its run on the device without waiting."""
        rows = sum(len(next(iter(part.values()))) for part in parts)
        for tensor in self._inputs:
            buffer = tensor.host[slot][: rows * tensor.row_bytes]
            np.concatenate(
                [part[tensor.name] for part in parts],
                out=buffer.view(tensor.dtype).reshape(rows, *tensor.row),
            )
            if not self._mapped:
                self._driver.copy_to_device(tensor.device[slot], buffer, self._stream)
            shaped = self._context.set_input_shape(tensor.name, (rows, *tensor.row))
            self._require(shaped, "shape")
        for tensor in (*self._inputs, *self._outputs):
            placed = self._context.set_tensor_address(tensor.name, tensor.device[slot])
            self._require(placed, "address")
        self._require(self._context.execute_async_v3(self._stream), "run")
        if not self._mapped:
            for tensor in self._outputs:
                buffer = tensor.host[slot][: rows * tensor.row_bytes]
                self._driver.copy_to_host(buffer, tensor.device[slot], self._stream)
        self._marks[slot] = rows, self._driver.mark(self._stream)

    def finish(self, slot: int) -> dict[str, Float32Array]:
        """Wait for a slot, and return copies: its buffers are filled again by the next batch."""
        rows, mark = self._marks.pop(slot)
        self._driver.synchronise(mark)
        return {
            t.name: t.host[slot][: rows * t.row_bytes].view(np.float32).reshape(rows, *t.row).copy()
            for t in self._outputs
        }

    def close(self) -> None:
        """Free the context, the engine and the runtime, then the driver's memory.

        Raises:
            BackendLostError: The device did not take something back.
        """
        # A batch that failed half-way may have left work on the stream.
        with contextlib.suppress(BackendLostError):  # closing the driver says so again
            self._driver.drain()
        self._release()
        self._driver.close()

    def _give_back(self) -> None:
        """Free what a load that failed has made; the load's error is told, and not this one's."""
        self._release()
        with contextlib.suppress(BackendLostError):
            self._driver.close()

    def _release(self) -> None:
        """Free TensorRT's objects, the last made first, while their context is current."""
        self._marks.clear()
        self._inputs, self._outputs = [], []
        self._context = None
        self._engine = None
        self._runtime = None

    def _tensor(self, trt: Any, name: str) -> _Tensor:
        row = tuple(int(d) for d in self._engine.get_tensor_shape(name))[1:]
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        row_bytes = int(np.prod(row, dtype=np.int64)) * dtype.itemsize
        size = row_bytes * self.max_batch
        if self._mapped:
            pairs = [self._driver.mapped(size) for _ in range(SLOTS)]
            host, device = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        else:
            host = [self._driver.pinned(size) for _ in range(SLOTS)]
            device = [self._driver.allocate(size)] * SLOTS
        return _Tensor(name, dtype, row, row_bytes, tuple(device), tuple(host))

    def _require(self, answer: bool, what: str) -> None:
        if not answer:
            raise BackendLostError(
                f"TensorRT refused the {what} of {self._label} ({self._last_error()})."
            )

    def _last_error(self) -> str:
        if not self._errors:
            return "no reason given"
        return self._errors[-1].strip().splitlines()[0][:MAX_REASON_CHARS]
