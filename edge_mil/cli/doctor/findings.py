"""Examine a device for `edge-mil doctor`; nothing is changed."""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edge_mil.backends.onnx_runtime import available_cores
from edge_mil.cli.doctor.accelerator import examine_accelerator
from edge_mil.cli.doctor.finding import GIB, TEGRA, Finding, output_of, version_of
from edge_mil.errors import DependencyError

LEAST_FREE = 5 * GIB
"""A day's sessions and a few engines fit into it."""
LEAST_MEMORY = 4 * GIB
OLDEST_YEAR = 2025
"""The year of the first release: a clock that shows an earlier one was never set."""
PROFILE_PACKAGES = {
    "serve": ("device", ("onnxruntime", "opencv-python-headless", "openslide-python", "h5py",
                         "jinja2", "msgspec", "platformdirs", "rfc8785", "rich", "tifffile",
                         "grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status",
                         "numpy")),
    "client": ("", ("grpcio", "protobuf", "numpy")),
    "export": ("export", ("torch", "timm", "onnx", "onnxscript", "safetensors", "onnxruntime",
                          "opencv-python-headless", "numpy")),
}  # fmt: skip
"""Profile -> the extra that installs its packages, and their names."""


def examine(profile: str, state: Path | None) -> list[Finding]:
    """Return what was found of everything that a profile needs.

    Args:
        profile: serve, client or export.
        state: State directory of the service; None for its default.
    """
    findings = [*_system(), *_packages(profile)]
    if profile == "serve":
        findings += [*examine_accelerator(), *_storage(state), *_clock(), *_camera()]
    return findings


def _system() -> Iterator[Finding]:
    release = platform.platform(terse=True)
    board = Path("/proc/device-tree/model")
    name = board.read_text(errors="replace").strip("\0 \n") if board.is_file() else ""
    yield Finding(
        "System", "ok", f"{name or platform.machine()}, {release}, {available_cores()} cores"
    )
    version = platform.python_version()
    if sys.version_info < (3, 10):  # noqa: UP036 # this is the check
        yield Finding("System", "missing", f"Python {version}; 3.10 or later is needed")
    else:
        yield Finding("System", "ok", f"Python {version}")
    if TEGRA.is_file():
        line = TEGRA.read_text(errors="replace").splitlines()[0].lstrip("# ")
        jetpack = output_of("dpkg-query", "-W", "-f=${Version}", "nvidia-jetpack")
        if jetpack:
            yield Finding("System", "ok", f"JetPack {jetpack} ({line})")
        else:
            yield Finding(
                "System",
                "warning",
                f"a Jetson without the package nvidia-jetpack ({line})",
                "sudo apt install nvidia-jetpack",
            )
    total, free = _memory()
    if total:
        what = f"memory {total / GIB:.1f} GiB, {free / GIB:.1f} GiB free"
        if total < LEAST_MEMORY:
            yield Finding("System", "warning", f"{what}; an engine build wants 4 GiB and more")
        else:
            yield Finding("System", "ok", what)


def _packages(profile: str) -> Iterator[Finding]:
    extra, names = PROFILE_PACKAGES[profile]
    install = f'pip install "edge-mil[{extra}]"' if extra else "pip install edge-mil"
    for name in names:
        found = version_of(name)
        if found:
            yield Finding("Packages", "ok", found)
        else:
            yield Finding("Packages", "missing", f"{name} is not installed", install)
    if profile == "serve":
        found = version_of("openvino")
        if found:
            yield Finding("Packages", "ok", found)
        else:
            yield Finding(
                "Packages",
                "info",
                "openvino is not installed: often the fastest on an x86 CPU",
                'pip install "edge-mil[openvino]"',
            )


def _storage(state: Path | None) -> Iterator[Finding]:
    try:
        from edge_mil.session import default_state_folder
    except (ModuleNotFoundError, DependencyError):
        return  # the findings about packages say what is missing
    folder = state or default_state_folder()
    at = folder
    while not at.exists():
        at = at.parent
    try:
        with tempfile.TemporaryFile(dir=at):
            pass
    except OSError as error:
        yield Finding(
            "Storage",
            "missing",
            f"{at} cannot be written ({error.strerror})",
            "name another folder with --state, or let the service's user own this one",
        )
        return
    free = shutil.disk_usage(at).free
    what = f"sessions in {folder}, {free / GIB:.1f} GiB free"
    if free < LEAST_FREE:
        yield Finding(
            "Storage", "warning", what, "export and remove old sessions, or name another --state"
        )
    else:
        yield Finding("Storage", "ok", what)


def _clock() -> Iterator[Finding]:
    now = time.gmtime()
    shown = time.strftime("%Y-%m-%d %H:%M UTC", now)
    if now.tm_year < OLDEST_YEAR:
        yield Finding(
            "Clock",
            "warning",
            f"the clock says {shown}: it was never set, and calibrations will be refused",
            "sudo timedatectl set-ntp true",
        )
        return
    follows = output_of("timedatectl", "show", "-p", "NTPSynchronized", "--value")
    if follows == "no":
        yield Finding(
            "Clock", "info", f"{shown}, no time server yet", "sudo timedatectl set-ntp true"
        )
    else:
        yield Finding("Clock", "ok", shown)


def _camera() -> Iterator[Finding]:
    cameras = sorted(Path("/dev").glob("video*"))
    if cameras:
        yield Finding("Camera", "ok", ", ".join(map(str, cameras)))
    else:
        yield Finding(
            "Camera",
            "info",
            "no camera on this device: fields come from clients, slides and folders",
        )


def _memory() -> tuple[int, int]:
    """Return total and free memory in bytes, (0, 0) where the system does not say."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)
