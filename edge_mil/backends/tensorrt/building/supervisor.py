"""Start the builder's process, hold it to its limits, and end it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edge_mil.backends.tensorrt.device import Device, free_memory_bytes
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError
from edge_mil.protocols import Progress

TIME_LIMIT_S = 3600.0
"""A large transformer takes tens of minutes on a small Jetson; more is a hang."""
MEMORY_SHARE = 0.75
"""Memory of the process, of what is free when the build starts."""
WORKSPACE_SHARE = 0.25
"""Scratch memory of TensorRT at most, of what is free when the build starts."""
POLL_S = 0.1
PIPE_READ_BYTES = 1 << 16
MIB = 1 << 20
OUT_OF_MEMORY = ("bad_alloc", "out of memory", "outofmemory", "memoryallocation")
"""What TensorRT says, or crashes with, when the system or the GPU refuses it memory."""
MAX_REASON_CHARS = 200
PROCESS = "edge_mil.backends.tensorrt.building.build_process"


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """What a build may take.

    Attributes:
        seconds: Time, by the clock.
        memory_bytes: Memory of the process; None takes three quarters of what is free.
    """

    seconds: float = TIME_LIMIT_S
    memory_bytes: int | None = None


class BuildInterruptedError(Exception):
    """A build ended by no fault of its engine, so a later one may succeed."""


class BuildLimitError(Exception):
    """A build ran out of memory or time, or was killed: one that asks for less may succeed."""


def run_build(
    recipe: Recipe,
    library: Library,
    device: Device | None,
    part: Path,
    timings: Path,
    *,
    limits: BuildLimits,
    progress: Progress,
    cancel: threading.Event,
) -> None:
    """Build an engine into the private file `part`; see `engine_builder.build_engine`.

    `timings` is the file of kernel timings that builds on this device share.

    Raises:
        EngineError: TensorRT refuses the graph; the next build would end the same.
        BuildLimitError: The builder was killed, crashed, or went over a limit.
        BuildInterruptedError: The build was cancelled, or the disk was full.
        OSError: The builder cannot be started.
    """
    free = free_memory_bytes()
    memory, workspace = limits.memory_bytes, recipe.workspace_bytes
    if free is not None:
        memory = int(free * MEMORY_SHARE) if memory is None else memory
        workspace = min(workspace, int(free * WORKSPACE_SHARE))
    job = {
        "library": library.name,
        "label": recipe.graph.label,
        "key": recipe.key(library, device).parts,
        "part": str(part),
        "timings": str(timings),
        "profile": recipe.profile.sizes,
        "workspace_bytes": workspace,
        "optimisation_level": recipe.optimisation_level,
        # CUDA reserves address space that it never uses, so the system limits only a build
        # without a device; the memory that is really used is watched either way.
        "allocation_bytes": memory if device is None else None,
    }
    # In the folder of engines, which was tested when it was opened: the system's own folder for
    # temporary files may be full.
    folder = part.parent
    with tempfile.TemporaryFile(dir=folder) as stdin, tempfile.TemporaryFile(dir=folder) as output:
        stdin.write(json.dumps(job).encode() + b"\n")
        stdin.write(recipe.graph.data)
        stdin.seek(0)
        with _process(stdin, output) as (process, reports):
            last = _watch(process, reports, limits.seconds, memory, progress, cancel)
            code = process.wait()
        if code == 0:
            return
        if "passing" in last:
            raise BuildInterruptedError(last["passing"])
        failed = "failed" in last
        reason = str(last["failed"]) if failed else _crash(code, output, library.title)
    if any(words in reason.lower() for words in OUT_OF_MEMORY):
        raise _out_of_memory(reason, memory)
    if failed:
        raise EngineError(reason)
    # A file of timings that ends the process would end every build to come.
    timings.unlink(missing_ok=True)
    raise BuildLimitError(reason)


def _watch(
    process: subprocess.Popen[bytes],
    reports: int,
    seconds: float,
    memory: int | None,
    progress: Progress,
    cancel: threading.Event,
) -> dict[str, Any]:
    """Hand on the process's progress until it ends, and hold it to its limits.

    Returns:
        The last report of each kind: share, failed, passing.
    """
    last: dict[str, Any] = {}
    ends = time.monotonic() + seconds
    for line in _lines(reports):
        if line:
            report = json.loads(line)
            last.update(report)
            if "share" in report:
                progress(report["share"])
        if cancel.is_set():
            raise BuildInterruptedError("the build was cancelled")
        if time.monotonic() > ends:
            raise BuildLimitError(f"the builder took more than {seconds:g} s and was stopped")
        if memory is not None and _resident_bytes(process.pid) > memory:
            raise _too_large(memory)
    return last


@contextlib.contextmanager
def _process(stdin: BinaryIO, output: BinaryIO) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the builder in a session of its own, and end it with the block.

    Yields:
        The process, and the file descriptor that its reports come through.
    """
    reports, report_to = os.pipe()
    life, alive = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", PROCESS, str(report_to), str(life)],
            stdin=stdin,
            stdout=output,
            stderr=output,
            pass_fds=(report_to, life),
            start_new_session=True,
        )
    finally:
        os.close(report_to)
        os.close(life)
    try:
        yield process, reports
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(reports)
        os.close(alive)


def _lines(reports: int) -> Iterator[bytes]:
    """Yield whole lines until the other end closes, and b"" often enough to check limits."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reports, selectors.EVENT_READ)
        while True:
            if selector.select(POLL_S):
                data = os.read(reports, PIPE_READ_BYTES)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
            yield b""


def _resident_bytes(process: int) -> int:
    """Return the memory that a process holds now, 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _too_large(memory: int) -> BuildLimitError:
    return BuildLimitError(f"the builder needed more than {memory // MIB} MiB of memory")


def _out_of_memory(reason: str, memory: int | None) -> BuildLimitError:
    if memory is None or "bad_alloc" not in reason:
        return BuildLimitError(f"the memory ran out ({reason})")
    return _too_large(memory)


def _crash(code: int, output: BinaryIO, title: str) -> str:
    """Return the reason of a builder that ended without a report."""
    output.seek(0)
    words = output.read().decode(errors="replace").strip().splitlines()
    if code == -signal.SIGKILL:
        return "the builder was killed, most likely because the memory ran out"
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the builder of {title} ended {how}" + (
        f" ({words[-1][:MAX_REASON_CHARS]})" if words else ""
    )
