"""The little that we want of CUDA, and the two packages that can give it."""

from __future__ import annotations

from typing import Any, Protocol

from edge_mil.errors import DependencyError
from edge_mil.types import UInt8Array

DRIVERS = ("pycuda", "cuda-python")


class Driver(Protocol):
    """Memory, copies and a stream of one GPU; every method is called by one thread, the owner.

    What `open` and the others give is given back by `close`.
    """

    def open(self) -> None:
        """Take the device's primary context, TensorRT's own, and make it this thread's.

        Raises:
            BackendLostError: There is no device, or it does not answer; so do all methods.
        """

    def stream(self) -> int:
        """Return the handle of a new stream."""

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory of the device."""

    def pinned(self, size_bytes: int) -> UInt8Array:
        """Return host memory, uint8 (size_bytes,), that copies go to and from while others run."""

    def copy_to_device(self, device: int, host: UInt8Array, stream: int) -> None:
        """Start copying all of `host`, pinned, to the device."""

    def copy_to_host(self, host: UInt8Array, device: int, stream: int) -> None:
        """Start filling `host`, pinned, from the device."""

    def mark(self, stream: int) -> Any:
        """Return a mark behind all that the stream was given so far."""

    def synchronise(self, mark: Any) -> None:
        """Wait until the stream has come to a mark."""

    def close(self) -> None:
        """Give everything back, in the thread that opened it."""


def open_driver(name: str | None = None) -> Driver:
    """Return a driver that is installed, not opened yet.

    Args:
        name: One of DRIVERS; None takes the first that is there.

    Raises:
        DependencyError: None is installed.
    """
    for wanted in DRIVERS if name is None else (name,):
        try:
            if wanted == "pycuda":
                from edge_mil.backends.tensorrt.drivers.pycuda import PycudaDriver

                return PycudaDriver()
            from edge_mil.backends.tensorrt.drivers.cuda_python import CudaPythonDriver

            return CudaPythonDriver()
        except (ImportError, OSError):
            continue
    raise DependencyError(
        "Neither pycuda nor cuda-python is installed, and one of them must talk to the GPU; on a "
        'Jetson run: pip install "edge-mil[tensorrt]", on a PC: pip install '
        '"edge-mil[tensorrt-rtx]".'
    )
