"""CUDA through pycuda, which a Jetson builds for itself; see `driver.Driver`.

The primary context, never `pycuda.autoinit`: that makes a second one, and TensorRT then answers
"invalid resource handle" (`runtime.md`, section 5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_mil.errors import BackendLostError
from edge_mil.types import UInt8Array


class PycudaDriver:
    """The first GPU through pycuda."""

    def __init__(self) -> None:
        import pycuda.driver as cuda

        self._cuda = cuda
        self._context: Any = None
        self._streams: dict[int, Any] = {}
        self._memory: list[Any] = []

    def open(self) -> None:
        """Retain the primary context and push it."""
        with self._errors():
            self._cuda.init()
            context = self._cuda.Device(0).retain_primary_context()
            context.push()
        self._context = context

    def stream(self) -> int:
        """Return the handle of a new stream."""
        with self._errors():
            made = self._cuda.Stream()
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory of the device."""
        with self._errors():
            made = self._cuda.mem_alloc(size_bytes)
        self._memory.append(made)
        return int(made)

    def pinned(self, size_bytes: int) -> UInt8Array:
        """Return pinned host memory."""
        with self._errors():
            made: UInt8Array = self._cuda.pagelocked_empty(size_bytes, np.uint8)
        return made

    def copy_to_device(self, device: int, host: UInt8Array, stream: int) -> None:
        """Start a copy."""
        with self._errors():
            self._cuda.memcpy_htod_async(device, host, self._streams[stream])

    def copy_to_host(self, host: UInt8Array, device: int, stream: int) -> None:
        """Start a copy."""
        with self._errors():
            self._cuda.memcpy_dtoh_async(host, device, self._streams[stream])

    def mark(self, stream: int) -> Any:
        """Return an event behind what the stream was given."""
        with self._errors():
            event = self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)
            event.record(self._streams[stream])
        return event

    def synchronise(self, mark: Any) -> None:
        """Wait for an event; other threads run meanwhile."""
        with self._errors():
            mark.synchronize()

    def close(self) -> None:
        """Free everything, pop the context, let it go."""
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
