"""Drivers and devices on a machine without a GPU: each says so in one sentence."""

from __future__ import annotations

import pytest

from edge_mil.backends.tensorrt.device import Device, find_device, free_memory_bytes
from edge_mil.backends.tensorrt.drivers.driver import DRIVERS, open_driver
from edge_mil.backends.tensorrt.library import find_library
from edge_mil.errors import BackendLostError, DependencyError

no_gpu = pytest.mark.skipif(find_device() is not None, reason="this machine has a GPU")


@no_gpu
@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_without_a_gpu_is_a_lost_backend(name: str) -> None:
    try:
        driver = open_driver(name)
    except DependencyError as error:
        pytest.skip(str(error))
    with pytest.raises(BackendLostError, match="GPU"):
        driver.open()
    driver.close()


def test_a_library_that_is_not_installed_comes_with_its_command() -> None:
    with pytest.raises(DependencyError, match="edge-mil\\[tensorrt-rtx\\]"):
        find_library("tensorrt_of_another_world")


def test_the_key_of_a_device_holds_what_an_engine_depends_on_and_not_its_memory() -> None:
    small = Device("Orin", "8.7", 8, 12060, 8 << 30, power_mode="pmode:0000")
    large = Device("Orin", "8.7", 8, 12060, 16 << 30, power_mode="pmode:0000")
    assert small.key() == large.key()
    assert small.key()["power_mode"] == "pmode:0000"


def test_free_memory_is_told_on_linux() -> None:
    free = free_memory_bytes()
    assert free is None or free > 1 << 20
