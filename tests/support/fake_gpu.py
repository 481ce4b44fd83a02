"""The stand-in for a GPU (`tests/fake_gpu`): built once, present in one test, counted after it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edge_mil.backends.tensorrt.library import Library

SOURCES = Path(__file__).resolve().parents[1] / "fake_gpu"
MODULES = SOURCES / "modules"
NOTHING_ALIVE = {
    "contexts": 0, "streams": 0, "events": 0, "device_bytes": 0, "host_bytes": 0,
    "runtime": 0, "engine": 0, "context": 0,
}  # fmt: skip


class FakeGpu:
    """The stand-in in this process, while a test uses it.

    Attributes:
        environment: What a child process needs to meet it too.
    """

    def __init__(self, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cuda = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._cuda.fakecuda_count.restype = ctypes.c_long
        self._cuda.fakecuda_first_misuse.restype = ctypes.c_char_p
        self._cuda.fakecuda_reset()
        self._monkeypatch = monkeypatch
        self.environment = environment(library)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(str(MODULES))
        self.present(True)
        self.tensorrt: ModuleType = __import__("tensorrt")
        self.tensorrt.live.clear()
        self.tensorrt.misuses.clear()
        self.library = Library("tensorrt", self.tensorrt.__version__, self.tensorrt)

    def present(self, there: bool) -> None:
        """Plug the GPU in, or pull it out."""
        self._cuda.fakecuda_set(b"present", ctypes.c_long(there))

    def integrated(self, shared: bool) -> None:
        """Let it share the host's memory, or have its own."""
        self._cuda.fakecuda_set(b"integrated", ctypes.c_long(shared))

    def memory(self, size_bytes: int) -> None:
        """Limit its memory."""
        self._cuda.fakecuda_set(b"memory", ctypes.c_long(size_bytes))

    def fail(self, faults: str) -> None:
        """Inject errors of the driver: "NAME:CODE[:SKIP[:TIMES[:sticky]]];..."."""
        self._cuda.fakecuda_configure(faults.encode())

    def fail_tensorrt(self, faults: str) -> None:
        """Inject faults of TensorRT, in the builder's process too."""
        self._monkeypatch.setenv("FAKE_TENSORRT_FAULTS", faults)

    @property
    def calls(self) -> int:
        """Calls of the driver so far."""
        return int(self._cuda.fakecuda_count(b"calls"))

    def alive(self) -> dict[str, int]:
        """Return how many contexts, streams, bytes, engines and so on exist."""
        found = {name: int(self._cuda.fakecuda_count(name.encode())) for name in NOTHING_ALIVE}
        return found | {name: self.tensorrt.live[name] for name in ("runtime", "engine", "context")}

    def misuses(self) -> list[str]:
        """Return what a device would not forgive."""
        first = self._cuda.fakecuda_first_misuse().decode()
        return [*([first] if first else []), *self.tensorrt.misuses]

    def check(self) -> None:
        """Check that nothing is left alive, and that no call was a mistake."""
        alive, misuses = self.alive(), self.misuses()
        assert alive == NOTHING_ALIVE, f"still alive: {alive}"
        assert misuses == [], f"calls that are mistakes: {misuses}"


def environment(library: Path) -> dict[str, str]:
    """Return what a process needs to find the stand-in in a GPU's place."""
    return {
        "LD_LIBRARY_PATH": _joined(str(library.parent), "LD_LIBRARY_PATH"),
        "PYTHONPATH": _joined(str(MODULES), "PYTHONPATH"),
        "FAKE_TENSORRT_FAULTS": "",
    }


@functools.cache
def build_library() -> Path:
    """Return the stand-in of libcuda, built by this machine's C compiler; skip without one."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the stand-in for a GPU needs Linux and a C compiler (cc)")
    sources = sorted((SOURCES / "libcuda").iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    # One build for all test processes of this user and these sources.
    folder = Path(tempfile.gettempdir()) / f"edge-mil-fake-gpu-{os.getuid()}-{digest[:12]}"
    library = folder / "libcuda.so.1"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to another user"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / "libcuda.so.1"
        words = ("-shared", "-fPIC", "-pthread", "-O1", f"-Wl,-soname,{library.name}")
        source = str(SOURCES / "libcuda" / "driver.c")
        subprocess.run([compiler, *words, "-o", str(made), source, "-ldl"], check=True)
        made.replace(library)
    return library


@contextlib.contextmanager
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """Give this process a GPU while the block lasts; other tests of the process see none."""
    gpu = FakeGpu(build_library(), monkeypatch)
    try:
        yield gpu
    finally:
        gpu.fail("")
        gpu.present(False)
        sys.modules.pop("tensorrt", None)


def _joined(folder: str, name: str) -> str:
    return os.pathsep.join(filter(None, [folder, os.environ.get(name, "")]))
