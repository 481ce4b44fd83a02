"""CUDA through NVIDIA's cuda-python (cuda-bindings), which has wheels for every platform."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edge_mil.errors import BackendLostError
from edge_mil.types import UInt8Array


class CudaPythonDriver:
    """The first GPU, through cuda-python; see `driver.Driver`."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver as cuda
        except ImportError:  # before 12.6 it had another place
            from cuda import cuda

        self._cuda: Any = cuda
        self._device: Any = None
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._memory: list[int] = []
        self._pinned: list[int] = []

    def open(self) -> None:
        """Retain the primary context, and push it."""
        cuda = self._cuda
        self._call(cuda.cuInit, 0)
        device = self._call(cuda.cuDeviceGet, 0)
        context = self._call(cuda.cuDevicePrimaryCtxRetain, device)
        try:
            self._call(cuda.cuCtxPushCurrent, context)
        except BackendLostError:
            self._call(cuda.cuDevicePrimaryCtxRelease, device)
            raise
        self._device = device

    def stream(self) -> int:
        flag = self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING
        handle = self._call(self._cuda.cuStreamCreate, flag)
        self._streams[int(handle)] = handle
        return int(handle)

    def allocate(self, size_bytes: int) -> int:
        address = int(self._call(self._cuda.cuMemAlloc, size_bytes))
        self._memory.append(address)
        return address

    def pinned(self, size_bytes: int) -> UInt8Array:
        return self._host_memory(size_bytes, 0)

    def mapped(self, size_bytes: int) -> tuple[UInt8Array, int]:
        memory = self._host_memory(size_bytes, self._cuda.CU_MEMHOSTALLOC_DEVICEMAP)
        address = self._call(self._cuda.cuMemHostGetDevicePointer, memory.ctypes.data, 0)
        return memory, int(address)

    def copy_to_device(self, device: int, host: UInt8Array, stream: int) -> None:
        copy = self._cuda.cuMemcpyHtoDAsync
        self._call(copy, device, host.ctypes.data, host.nbytes, self._streams[stream])

    def copy_to_host(self, host: UInt8Array, device: int, stream: int) -> None:
        copy = self._cuda.cuMemcpyDtoHAsync
        self._call(copy, host.ctypes.data, device, host.nbytes, self._streams[stream])

    def mark(self, stream: int) -> Any:
        flag = self._cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING
        event = self._call(self._cuda.cuEventCreate, flag)
        self._events[int(event)] = event
        self._call(self._cuda.cuEventRecord, event, self._streams[stream])
        return event

    def synchronise(self, mark: Any) -> None:
        self._call(self._cuda.cuEventSynchronize, mark)
        self._call(self._cuda.cuEventDestroy, mark)
        del self._events[int(mark)]

    def drain(self) -> None:
        for handle in self._streams.values():
            self._call(self._cuda.cuStreamSynchronize, handle)

    def close(self) -> None:
        """Free everything, then pop and release the context."""
        if self._device is None:
            return
        device, self._device = self._device, None
        cuda = self._cuda
        frees: list[tuple[Any, tuple[Any, ...]]] = []
        frees += [(cuda.cuStreamDestroy, (handle,)) for handle in self._streams.values()]
        frees += [(cuda.cuEventDestroy, (event,)) for event in self._events.values()]
        frees += [(cuda.cuMemFree, (address,)) for address in self._memory]
        frees += [(cuda.cuMemFreeHost, (address,)) for address in self._pinned]
        frees += [(cuda.cuCtxPopCurrent, ()), (cuda.cuDevicePrimaryCtxRelease, (device,))]
        self._streams, self._events, self._memory, self._pinned = {}, {}, [], []
        errors = []
        for function, arguments in frees:
            try:
                self._call(function, *arguments)
            except BackendLostError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _host_memory(self, size_bytes: int, flags: int) -> UInt8Array:
        address = int(self._call(self._cuda.cuMemHostAlloc, size_bytes, flags))
        self._pinned.append(address)
        memory: UInt8Array = np.ctypeslib.as_array(
            (ctypes.c_uint8 * size_bytes).from_address(address)
        )
        return memory

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call the driver; the first value that it returns is an error code.

        Raises:
            BackendLostError: The code is no success, or the driver is not installed.
        """
        try:
            code, *found = function(*arguments)
        except RuntimeError as error:  # the driver's library or function is missing
            why = str(error).rstrip(".")
            raise BackendLostError(f"The GPU's driver cannot be used: {why}.") from error
        if int(code) != 0:
            name = getattr(code, "name", code)
            raise BackendLostError(f"The GPU does not answer: {name} ({function.__name__}).")
        return found[0] if found else None
