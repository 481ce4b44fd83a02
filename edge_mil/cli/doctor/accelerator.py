"""Examine the GPU for `edge-mil doctor`: device, libraries, driver packages, a Jetson's power."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edge_mil.cli.doctor.finding import GIB, TEGRA, Finding, output_of, version_of
from edge_mil.errors import DependencyError, EdgeMilError

CLOCKS = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def examine_accelerator() -> Iterator[Finding]:
    """Yield what was found of the GPU, and of what runs models on it."""
    from edge_mil.backends.tensorrt.device import find_device
    from edge_mil.backends.tensorrt.library import find_library

    device = find_device()
    if device is None:
        yield Finding(
            "Accelerator",
            "info",
            "no NVIDIA GPU answers: the CPU runs the models",
            "nvidia-smi  (on a PC that has one: is its driver installed?)",
        )
    else:
        yield Finding(
            "Accelerator",
            "ok",
            f"{device.name}, compute capability {device.compute_capability}, "
            f"{device.memory_bytes / GIB:.1f} GiB{', shared' if device.integrated else ''}, "
            f"driver CUDA {device.driver // 1000}.{device.driver % 1000 // 10}",
        )
    try:
        yield Finding("Accelerator", "ok", find_library().title)
    except DependencyError as error:
        state = "info" if device is None else "warning"
        yield Finding("Accelerator", state, str(error))
    yield from _driver_packages(needed=device is not None)
    with contextlib.suppress(ImportError):
        import onnxruntime

        providers = [p.removesuffix("ExecutionProvider") for p in _providers(onnxruntime)]
        yield Finding("Accelerator", "ok", f"ONNX Runtime's providers: {', '.join(providers)}")
    yield from _jetson_power()


def _driver_packages(*, needed: bool) -> Iterator[Finding]:
    found = [line for line in map(version_of, ("pycuda", "cuda-python", "cuda-bindings")) if line]
    if found:
        yield Finding("Accelerator", "ok", ", ".join(found))
        if needed:
            yield _context()
    elif needed:
        yield Finding(
            "Accelerator",
            "warning",
            "neither pycuda nor cuda-bindings is installed: engines cannot be run",
            'pip install "cuda-bindings>=12.6,<13"   (or, with the CUDA toolkit: '
            "PATH=/usr/local/cuda/bin:$PATH pip install pycuda)",
        )


def _context() -> Finding:
    """Make a context of the GPU, which a user without rights on its nodes cannot."""
    from edge_mil.backends.tensorrt.drivers.driver import check_driver

    try:
        check_driver()
    except EdgeMilError as error:
        return Finding(
            "Accelerator",
            "warning",
            f"no context of the GPU can be made: {error}",
            "sudo usermod -aG video,render $USER  (a service: sudo deploy/install --check)",
        )
    return Finding("Accelerator", "ok", "a context of the GPU can be made")


def _jetson_power() -> Iterator[Finding]:
    mode = output_of("nvpmodel", "-q")
    if mode:
        yield Finding(
            "Accelerator",
            "ok",
            f"power mode: {' '.join(mode.split())}",
            "sudo /opt/edge-mil/share/power-mode NAME  (without NAME it lists the modes); then "
            "edge-mil tune",
        )
    if TEGRA.is_file() and CLOCKS.is_dir():
        least = (CLOCKS / "scaling_min_freq").read_text().strip()
        most = (CLOCKS / "scaling_max_freq").read_text().strip()
        if least != most:
            yield Finding(
                "Accelerator", "info", "clocks follow the load: times vary", "sudo jetson_clocks"
            )


def _providers(library: object) -> list[str]:
    found: list[str] = library.get_available_providers()  # type: ignore[attr-defined] # untyped
    return found
