"""The part of CUDA that running an engine needs, and the two packages that offer it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from edge_mil.errors import DependencyError
from edge_mil.types import UInt8Array

DRIVERS = ("pycuda", "cuda-python")


class Driver(Protocol):
    """Memory, copies and a stream of one GPU; one thread, the owner, calls every method.

    Every method raises BackendLostError where there is no device or it does not answer. `close`
    frees what the other methods allocated. It goes on after an error, so that a device that lost
    its context keeps as little as possible, and raises the first one at its end.
    """

    def open(self) -> None:
        """Make the device's primary context, which TensorRT uses, this thread's own."""

    def stream(self) -> int:
        """Return the handle of a new stream."""

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory of the device."""

    def pinned(self, size_bytes: int) -> UInt8Array:
        """Return pinned host memory, uint8 (size_bytes,), for asynchronous copies."""

    def mapped(self, size_bytes: int) -> tuple[UInt8Array, int]:
        """Return pinned host memory that the device uses where it lies, and its address there.

        For a GPU that shares the board's memory: nothing is copied.
        """

    def copy_to_device(self, device: int, host: UInt8Array, stream: int) -> None:
        """Start copying all of `host`, pinned, to the device."""

    def copy_to_host(self, host: UInt8Array, device: int, stream: int) -> None:
        """Start filling `host`, pinned, from the device."""

    def mark(self, stream: int) -> Any:
        """Return a mark behind the work that the stream has so far."""

    def synchronise(self, mark: Any) -> None:
        """Wait until the stream has reached a mark."""

    def drain(self) -> None:
        """Wait until every stream has done its work."""

    def close(self) -> None:
        """Free everything, in the thread that opened it."""


def open_driver(name: str | None = None) -> Driver:
    """Return a driver that is installed; it is not opened yet.

    Args:
        name: One of DRIVERS; None takes the first that is installed.

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
        "Neither pycuda nor cuda-bindings is installed, and one of them must talk to the GPU; a "
        'Jetson with the CUDA toolkit builds the first (pip install "edge-mil[tensorrt]"), and '
        'every other device has wheels of the second (pip install "cuda-bindings>=12.6,<13").'
    )


def check_driver() -> None:
    """Make a context of the GPU and give it back: seconds before a build of minutes.

    Raises:
        DependencyError: No package that talks to the GPU is installed.
        BackendLostError: The GPU does not answer, or this user may not open it.
    """
    driver = open_driver()

    def try_it() -> None:
        driver.open()
        driver.close()

    # In a thread of its own, which takes with it what a package leaves current: pycuda pushes the
    # primary context once more to release it.
    with ThreadPoolExecutor(1, thread_name_prefix="check-driver") as thread:
        thread.submit(try_it).result()
