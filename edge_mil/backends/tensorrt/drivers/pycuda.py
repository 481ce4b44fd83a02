"""CUDA through pycuda, which is built on the Jetson itself.

It uses the primary context and never `pycuda.autoinit`, which makes a second one: TensorRT then
answers "invalid resource handle" (`docs/design/quantization-and-runtime.md`, "TensorRT").
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_mil.errors import BackendLostError
from edge_mil.types import UInt8Array


class PycudaDriver:
    """The first GPU, through pycuda; see `driver.Driver`."""

    def __init__(self) -> None:
        import pycuda.driver as cuda

        self._cuda = cuda
        self._context: Any = None
        self._streams: dict[int, Any] = {}
        self._memory: list[Any] = []

    def open(self) -> None:
        """Retain the primary context, and push it."""
        with self._errors():
            self._cuda.init()
            context = self._cuda.Device(0).retain_primary_context()
            context.push()
        self._context = context

    def stream(self) -> int:
        with self._errors():
            stream = self._cuda.Stream()
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def allocate(self, size_bytes: int) -> int:
        with self._errors():
            memory = self._cuda.mem_alloc(size_bytes)
        self._memory.append(memory)
        return int(memory)

    def pinned(self, size_bytes: int) -> UInt8Array:
        with self._errors():
            memory: UInt8Array = self._cuda.pagelocked_empty(size_bytes, np.uint8)
        return memory

    def copy_to_device(self, device: int, host: UInt8Array, stream: int) -> None:
        with self._errors():
            self._cuda.memcpy_htod_async(device, host, self._streams[stream])

    def copy_to_host(self, host: UInt8Array, device: int, stream: int) -> None:
        with self._errors():
            self._cuda.memcpy_dtoh_async(host, device, self._streams[stream])

    def mark(self, stream: int) -> Any:
        with self._errors():
            event = self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)
            event.record(self._streams[stream])
        return event

    def synchronise(self, mark: Any) -> None:
        with self._errors():
            mark.synchronize()

    def close(self) -> None:
        """Free everything, then pop and release the context."""
        if self._context is None:
            return
        context, self._context = self._context, None
        with self._errors():
            self._streams.clear()
            for memory in self._memory:
                memory.free()
            self._memory.clear()
            context.pop()
            context.detach()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise BackendLostError(f"The GPU does not answer: {error}.") from error
