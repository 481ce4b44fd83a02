"""The GPU of this machine, as the CUDA driver describes it through ctypes: no package needed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

DRIVER_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
POWER_MODE = Path("/var/lib/nvpmodel/status")
"""A Jetson's power mode: other clocks make other kernels the fastest."""
MEMORY_INFO = Path("/proc/meminfo")
NAME_BYTES = 256
KIB = 1024

MULTIPROCESSORS, INTEGRATED, MAJOR, MINOR = 16, 18, 75, 76
"""CUdevice_attribute, from cuda.h."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, as far as an engine depends on it.

    Attributes:
        name: As the driver has it.
        compute_capability: "8.7" on Orin.
        multiprocessors: How many.
        driver: CUDA version of the driver, 12060 for 12.6.
        memory_bytes: Of the GPU; of the whole board where it is integrated.
        integrated: Whether it shares the board's memory.
        power_mode: Of a Jetson; "" elsewhere.
    """

    name: str
    compute_capability: str
    multiprocessors: int
    driver: int
    memory_bytes: int
    integrated: bool = False
    power_mode: str = ""

    def key(self) -> dict[str, object]:
        """Return what an engine built here depends on."""
        return {
            "name": self.name,
            "compute_capability": self.compute_capability,
            "multiprocessors": self.multiprocessors,
            "driver": self.driver,
            "power_mode": self.power_mode,
        }


def find_device(index: int = 0) -> Device | None:
    """Return a GPU of this machine; None where there is none or its driver does not answer."""
    try:
        return _ask(index)
    except AttributeError:  # a library of that name which lacks the calls of a driver
        return None


def _ask(index: int) -> Device | None:
    driver = _driver()
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver is None or driver.cuInit(0) != 0:
        return None
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or index >= count.value:
        return None
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(NAME_BYTES)
    codes = (
        driver.cuDeviceGet(ctypes.byref(handle), index),
        driver.cuDeviceGetName(name, NAME_BYTES, handle),
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(codes):
        return None

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
        return value.value

    return Device(
        name.value.decode(errors="replace"),
        f"{attribute(MAJOR)}.{attribute(MINOR)}",
        attribute(MULTIPROCESSORS),
        version.value,
        memory.value,
        integrated=bool(attribute(INTEGRATED)),
        power_mode=_power_mode(),
    )


def _power_mode() -> str:
    try:
        return POWER_MODE.read_text().strip()
    except OSError:
        return ""


def free_memory_bytes() -> int | None:
    """Return the memory that programs can still allocate; None where the system does not tell."""
    try:
        lines = MEMORY_INFO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return None


def _driver() -> ctypes.CDLL | None:
    for name in DRIVER_LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
