"""Examine a device for `edge-mil doctor`; nothing is changed."""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from edge_mil.backends.onnx_runtime import available_cores
from edge_mil.errors import DependencyError

GIB = 1 << 30
LEAST_FREE = 5 * GIB
"""A day's sessions and a few engines fit into it."""
LEAST_MEMORY = 4 * GIB
OLDEST_YEAR = 2025
"""The year of the first release: a clock that shows an earlier one was never set."""
TEGRA = Path("/etc/nv_tegra_release")
CLOCKS = Path("/sys/devices/system/cpu/cpu0/cpufreq")
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
SAME_LIBRARY = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv")}
"""Package -> other distributions that serve as well, as JetPack's own OpenCV."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the device.

    Attributes:
        section: System, Accelerator, Packages, Storage, Clock or Camera.
        state: ok; info (good to know); warning (works with a fault); missing (the profile needs
            it).
        what: What was found, in one sentence.
        mend: The command or the act that mends it; "" where nothing needs to be done.
    """

    section: str
    state: str
    what: str
    mend: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return asdict(self)


def examine(profile: str, state: Path | None) -> list[Finding]:
    """Return what was found of everything that a profile needs.

    Args:
        profile: serve, client or export.
        state: State directory of the service; None for its default.
    """
    findings = [*_system(), *_packages(profile)]
    if profile == "serve":
        findings += [*_accelerator(), *_storage(state), *_clock(), *_camera()]
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
        jetpack = _output_of("dpkg-query", "-W", "-f=${Version}", "nvidia-jetpack")
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
        found = _version(name)
        if found:
            yield Finding("Packages", "ok", found)
        else:
            yield Finding("Packages", "missing", f"{name} is not installed", install)
    if profile == "serve":
        found = _version("openvino")
        if found:
            yield Finding("Packages", "ok", found)
        else:
            yield Finding(
                "Packages",
                "info",
                "openvino is not installed: often the fastest on an x86 CPU",
                'pip install "edge-mil[openvino]"',
            )


def _accelerator() -> Iterator[Finding]:
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
    found = [line for line in map(_version, ("pycuda", "cuda-python", "cuda-bindings")) if line]
    if found:
        yield Finding("Accelerator", "ok", ", ".join(found))
    elif needed:
        yield Finding(
            "Accelerator",
            "warning",
            "neither pycuda nor cuda-bindings is installed: engines cannot be run",
            'pip install "cuda-bindings>=12.6,<13"   (or, with the CUDA toolkit: '
            "PATH=/usr/local/cuda/bin:$PATH pip install pycuda)",
        )


def _jetson_power() -> Iterator[Finding]:
    mode = _output_of("nvpmodel", "-q")
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
    follows = _output_of("timedatectl", "show", "-p", "NTPSynchronized", "--value")
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


def _version(name: str) -> str:
    for candidate in (name, *SAME_LIBRARY.get(name, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{candidate} {metadata.version(candidate)}"
    return ""


def _providers(library: object) -> list[str]:
    found: list[str] = library.get_available_providers()  # type: ignore[attr-defined] # untyped
    return found


def _output_of(*command: str) -> str:
    """Return what a program prints; "" where it is not installed, or fails."""
    if shutil.which(command[0]) is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return ended.stdout.strip() if ended.returncode == 0 else ""
    return ""


def _memory() -> tuple[int, int]:
    """Return total and free memory in bytes, (0, 0) where the system does not say."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)
