"""An engine on a device: two sets of pinned host buffers, asynchronous copies, one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.backends.batching import Arrays, Shapes
from edge_mil.backends.tensorrt.drivers.driver import Driver
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import BackendLostError, EngineError
from edge_mil.types import Float32Array, UInt8Array

SLOTS = 2
"""While the device runs one batch, the host fills the other's buffers."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """An input or output: its rows, its memory on the device, its pinned host buffers."""

    name: str
    dtype: npt.DTypeLike
    row: tuple[int, ...]
    row_bytes: int
    device: int
    host: tuple[UInt8Array, ...]


class EngineExecutor:
    """Runs one engine; every method in the thread that made it. See `batching.Executor`.

    Device memory is there once: on one stream the copies of a batch follow the batch before. What
    is there twice is the host's side, so that filling and reading overlap with the device's work.
    """

    slots = SLOTS

    def __init__(self, library: Library, plan: bytes, driver: Driver, label: str) -> None:
        """Load a verified plan.

        Raises:
            EngineError: TensorRT does not take the plan, or an output is not float32.
            BackendLostError: There is no device, or it does not answer.
        """
        self._label, self._driver = label, driver
        self._said: list[str] = []
        driver.open()
        try:
            self._load(library, plan)
        except BaseException:
            driver.close()
            raise

    def _load(self, library: Library, plan: bytes) -> None:
        trt = library.module
        self._logger = library.logger(self._said.append)
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"{library.title} does not load the engine of {self._label} "
                f"({self._last_words()}); edge-mil engine clear removes it."
            )
        self._engine = engine
        context = engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{library.title} cannot run the engine of {self._label} here "
                f"({self._last_words()}), most likely for lack of memory."
            )
        self._context, self._stream = context, self._driver.stream()
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        given = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.max_batch = int(engine.get_tensor_profile_shape(given[0], 0)[2][0])
        self._given = [self._tensor(trt, name) for name in given]
        self._made = [self._tensor(trt, name) for name in names if name not in given]
        if any(tensor.dtype != np.float32 for tensor in self._made):
            raise EngineError(f"The engine of {self._label} gives no FP32 features.")
        self.inputs: Shapes = {
            t.name: (np.dtype(t.dtype).name, (None, *t.row)) for t in self._given
        }
        self._marks: dict[int, tuple[int, Any]] = {}

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Fill a slot's buffers, and give the device copies and work; wait for none of it."""
        rows = sum(len(next(iter(part.values()))) for part in parts)
        for tensor in self._given:
            size = rows * tensor.row_bytes
            held = tensor.host[slot][:size]
            filled = held.view(tensor.dtype).reshape(rows, *tensor.row)
            at = 0
            for part in parts:
                array = part[tensor.name]
                filled[at : at + len(array)] = array
                at += len(array)
            self._driver.copy_to_device(tensor.device, held, self._stream)
            self._must(self._context.set_input_shape(tensor.name, (rows, *tensor.row)), "shape")
            self._must(self._context.set_tensor_address(tensor.name, tensor.device), "address")
        for tensor in self._made:
            self._must(self._context.set_tensor_address(tensor.name, tensor.device), "address")
        self._must(self._context.execute_async_v3(self._stream), "run")
        for tensor in self._made:
            held = tensor.host[slot][: rows * tensor.row_bytes]
            self._driver.copy_to_host(held, tensor.device, self._stream)
        self._marks[slot] = rows, self._driver.mark(self._stream)

    def finish(self, slot: int) -> dict[str, Float32Array]:
        """Wait for a slot, and return copies: its buffers are filled again by the next batch."""
        rows, mark = self._marks.pop(slot)
        self._driver.synchronise(mark)
        return {
            t.name: t.host[slot][: rows * t.row_bytes].view(np.float32).reshape(rows, *t.row).copy()
            for t in self._made
        }

    def close(self) -> None:
        """Give back the context, the engine and the runtime, then the driver's memory."""
        for _, mark in self._marks.values():
            self._driver.synchronise(mark)
        self._marks.clear()
        self._given, self._made = [], []
        self._context = self._engine = self._runtime = None
        self._driver.close()

    def _tensor(self, trt: Any, name: str) -> _Tensor:
        row = tuple(int(d) for d in self._engine.get_tensor_shape(name))[1:]
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        row_bytes = int(np.prod(row, dtype=np.int64)) * dtype.itemsize
        size = row_bytes * self.max_batch
        host = tuple(self._driver.pinned(size) for _ in range(SLOTS))
        return _Tensor(name, dtype, row, row_bytes, self._driver.allocate(size), host)

    def _must(self, answer: bool, what: str) -> None:
        if not answer:
            raise BackendLostError(
                f"TensorRT refused the {what} of {self._label} ({self._last_words()})."
            )

    def _last_words(self) -> str:
        return self._said[-1].strip().splitlines()[0][:200] if self._said else "no reason given"
