"""Run an engine: two sets of pinned host buffers, asynchronous copies, one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.backends.tensorrt.drivers.driver import Driver
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import BackendLostError, EngineError
from edge_mil.protocols import Arrays, InputTypes
from edge_mil.types import Float32Array, UInt8Array

SLOTS = 2
"""While the device runs one batch, the host fills the other's buffers."""
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """An input or output: its rows, the address of its device memory, a host buffer per slot."""

    name: str
    dtype: npt.DTypeLike
    row: tuple[int, ...]
    row_bytes: int
    device: int
    host: tuple[UInt8Array, ...]


class EngineExecutor:
    """Runs one engine, always in the thread that made it; see `backends.executor.Executor`.

    There is one set of device memory: on one stream the copies of a batch follow the batch before.
    The host's buffers are there twice, so that filling and reading overlap with the device's work.
    """

    slots = SLOTS

    def __init__(self, library: Library, plan: bytes, driver: Driver, label: str) -> None:
        """Load a verified plan.

        Raises:
            EngineError: TensorRT does not take the plan, or an output is not float32.
            BackendLostError: There is no device, or it does not answer.
        """
        self._label, self._driver = label, driver
        self._errors: list[str] = []
        driver.open()
        try:
            self._load(library, plan)
        except BaseException:
            driver.close()
            raise

    def _load(self, library: Library, plan: bytes) -> None:
        trt = library.module
        self._logger = library.logger(self._errors.append)
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"{library.title} does not load the engine of {self._label} "
                f"({self._last_error()}); edge-mil engine clear removes it."
            )
        self._engine = engine
        context = engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{library.title} cannot run the engine of {self._label} here "
                f"({self._last_error()}), most likely for lack of memory."
            )
        self._context, self._stream = context, self._driver.stream()
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.max_batch = int(engine.get_tensor_profile_shape(inputs[0], 0)[2][0])
        self._inputs = [self._tensor(trt, name) for name in inputs]
        self._outputs = [self._tensor(trt, name) for name in names if name not in inputs]
        if any(tensor.dtype != np.float32 for tensor in self._outputs):
            raise EngineError(f"The engine of {self._label} gives no FP32 features.")
        self.inputs: InputTypes = {
            t.name: (np.dtype(t.dtype).name, (None, *t.row)) for t in self._inputs
        }
        self._marks: dict[int, tuple[int, Any]] = {}

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Fill a slot's buffers, and queue its copies and its run on the device without waiting."""
        rows = sum(len(next(iter(part.values()))) for part in parts)
        for tensor in self._inputs:
            buffer = tensor.host[slot][: rows * tensor.row_bytes]
            np.concatenate(
                [part[tensor.name] for part in parts],
                out=buffer.view(tensor.dtype).reshape(rows, *tensor.row),
            )
            self._driver.copy_to_device(tensor.device, buffer, self._stream)
            self._require(self._context.set_input_shape(tensor.name, (rows, *tensor.row)), "shape")
            self._require(self._context.set_tensor_address(tensor.name, tensor.device), "address")
        for tensor in self._outputs:
            self._require(self._context.set_tensor_address(tensor.name, tensor.device), "address")
        self._require(self._context.execute_async_v3(self._stream), "run")
        for tensor in self._outputs:
            buffer = tensor.host[slot][: rows * tensor.row_bytes]
            self._driver.copy_to_host(buffer, tensor.device, self._stream)
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
        """Free the context, the engine and the runtime, then the driver's memory."""
        for _, mark in self._marks.values():
            self._driver.synchronise(mark)
        self._marks.clear()
        self._inputs, self._outputs = [], []
        self._context = self._engine = self._runtime = None
        self._driver.close()

    def _tensor(self, trt: Any, name: str) -> _Tensor:
        row = tuple(int(d) for d in self._engine.get_tensor_shape(name))[1:]
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        row_bytes = int(np.prod(row, dtype=np.int64)) * dtype.itemsize
        size = row_bytes * self.max_batch
        host = tuple(self._driver.pinned(size) for _ in range(SLOTS))
        return _Tensor(name, dtype, row, row_bytes, self._driver.allocate(size), host)

    def _require(self, answer: bool, what: str) -> None:
        if not answer:
            raise BackendLostError(
                f"TensorRT refused the {what} of {self._label} ({self._last_error()})."
            )

    def _last_error(self) -> str:
        if not self._errors:
            return "no reason given"
        return self._errors[-1].strip().splitlines()[0][:MAX_REASON_CHARS]
