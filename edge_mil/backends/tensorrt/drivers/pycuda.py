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
        self._pinned: list[Any] = []

    def open(self) -> None:
        """Retain the primary context, and push it."""
        with self._errors():
            self._cuda.init()
            context = self._cuda.Device(0).retain_primary_context()
            try:
                context.push()
            except self._cuda.Error:
                context.detach()
                raise
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
        return self._host_memory(size_bytes, 0)

    def mapped(self, size_bytes: int) -> tuple[UInt8Array, int]:
        memory = self._host_memory(size_bytes, self._cuda.host_alloc_flags.DEVICEMAP)
        with self._errors():
            return memory, int(self._pinned[-1].get_device_pointer())

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

    def drain(self) -> None:
        with self._errors():
            for stream in self._streams.values():
                stream.synchronize()

    def close(self) -> None:
        """Free everything, then pop and release the context."""
        if self._context is None:
            return
        context, self._context = self._context, None
        # A stream has no call that frees it: it goes with its last reference.
        frees = [self._streams.clear]
        frees += [memory.free for memory in [*self._memory, *self._pinned]]
        frees += [context.pop, context.detach]
        self._memory, self._pinned = [], []
        errors = []
        for free in frees:
            try:
                with self._errors():
                    free()
            except BackendLostError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _host_memory(self, size_bytes: int, flags: int) -> UInt8Array:
        with self._errors():
            memory: UInt8Array = self._cuda.pagelocked_empty(size_bytes, np.uint8, mem_flags=flags)
        self._pinned.append(memory.base)
        return memory

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise BackendLostError(f"The GPU does not answer: {error}.") from error
