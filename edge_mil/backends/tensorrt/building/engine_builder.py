"""Build an engine in a process of its own: told how far it is, limited, killed when it must be."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_mil.backends.tensorrt.device import Device, free_memory_bytes
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.engine_file import EngineHeader
from edge_mil.backends.tensorrt.engines.recipe import FREE_SHARE, EngineKey, Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError

TIME_LIMIT_S = 3600.0
"""A large transformer takes tens of minutes on a small Jetson; more is a hang."""
MEMORY_SHARE = 0.75
"""Of the memory that is free when the build starts."""
POLL_S = 0.1
MIB = 1 << 20
REFUSED = "bad_alloc"
"""What TensorRT says, or crashes with, when the system refuses it memory."""
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


class _PassingError(Exception):
    """A build ended by no fault of the engine: not remembered as one."""


def build_engine(
    recipe: Recipe,
    library: Library,
    device: Device | None,
    cache: EngineCache,
    *,
    limits: BuildLimits | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    cancelled: threading.Event | None = None,
) -> tuple[EngineHeader, bytes]:
    """Return the engine of a recipe: from the cache, or built now and kept there.

    Args:
        recipe: What to build.
        library: With what.
        device: For what; None builds ahead of time.
        cache: Where engines and failures are kept.
        limits: Of the builder's process.
        on_progress: Is told the share that is done, 0 to 1.
        cancelled: Ends the build when it is set.

    Raises:
        EngineError: It cannot be built, or could not be before; the message says why. The reason
            is kept, so that the next start does not try for minutes again. Nothing is kept where
            `cancelled` was set or the disk was full.
    """
    key = recipe.key(library, device)
    found = cache.find(key)
    if found is not None:
        return found
    known = cache.failure(key)
    if known is not None:
        raise EngineError(
            f"{recipe.label} was not built: {known.reason} (on "
            f"{time.strftime('%Y-%m-%d at %H:%M', time.localtime(known.time))}; edge-mil engine "
            "clear forgets it, and the next start tries again)."
        )
    if device is None and not library.builds_ahead:
        raise EngineError(
            f"{library.title} builds on the GPU that it will run on, and this machine shows none; "
            "check its driver (nvidia-smi)."
        )
    with cache.alone(key):
        found = cache.find(key)  # another process may have built it meanwhile
        if found is not None:
            return found
        part = cache.part()
        try:
            _Build(recipe, library, device, key, cache, part).run(
                limits or BuildLimits(), on_progress, cancelled or threading.Event()
            )
            cache.keep(key, part)
        except _PassingError as error:
            raise EngineError(f"{recipe.label} was not built: {error}.") from error
        except EngineError as error:
            cache.remember(key, recipe.label, str(error))
            raise EngineError(f"{recipe.label} was not built: {error}.") from error
        finally:
            part.unlink(missing_ok=True)
    built = cache.find(key)
    if built is None:
        raise EngineError(f"The engine of {recipe.label} went away as soon as it was built.")
    return built


class _Build:
    """One run of the builder's process."""

    def __init__(
        self,
        recipe: Recipe,
        library: Library,
        device: Device | None,
        key: EngineKey,
        cache: EngineCache,
        part: Path,
    ) -> None:
        self._recipe, self._device = recipe, device
        self._free = free_memory_bytes()
        profile = recipe.profile
        self._job: dict[str, object] = {
            "library": library.name,
            "label": recipe.label,
            "key": key.parts,
            "part": str(part),
            "timings": str(cache.timings(key)),
            "profile": [profile.smallest, profile.usual, profile.largest],
            "workspace_bytes": self._workspace(),
            "optimisation_level": recipe.optimisation_level,
        }
        self._title = library.title
        self._failed = self._passing = ""

    def run(
        self,
        limits: BuildLimits,
        on_progress: Callable[[float], None],
        cancelled: threading.Event,
    ) -> None:
        """Build into the part file.

        Raises:
            EngineError: The builder failed, crashed, or went over a limit.
            _PassingError: It was given up, or the disk was full.
        """
        memory = limits.memory_bytes
        if memory is None and self._free is not None:
            memory = int(self._free * MEMORY_SHARE)
        # CUDA reserves address space that it never uses, so only a build without it is fenced by
        # the system too; `_watch` counts what is really used either way.
        job = {**self._job, "allocation_bytes": memory if self._device is None else None}
        ends = time.monotonic() + limits.seconds
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(json.dumps(job).encode() + b"\n")
            given.write(self._recipe.model)
            given.seek(0)
            with _process(given, said) as (process, told):
                for line in _lines(told):
                    if line:
                        self._hear(line, on_progress)
                    if cancelled.is_set():
                        raise _PassingError("it was given up")
                    if time.monotonic() > ends:
                        raise EngineError(
                            f"the builder took more than {limits.seconds:g} s and was stopped"
                        )
                    used = _resident_bytes(process.pid)
                    if memory is not None and used > memory:
                        raise _too_large(memory)
                code = process.wait()
            if code == 0:
                return
            if self._passing:
                raise _PassingError(self._passing)
            why = self._failed or _crash(code, said, self._title)
            raise _too_large(memory) if memory and REFUSED in why else EngineError(why)

    def _hear(self, line: bytes, on_progress: Callable[[float], None]) -> None:
        message = json.loads(line)
        self._failed = message.get("failed", self._failed)
        self._passing = message.get("passing", self._passing)
        if "share" in message:
            on_progress(message["share"])

    def _workspace(self) -> int:
        """Return the scratch memory: what was asked for, and at most a part of what is free."""
        if self._free is None:
            return self._recipe.workspace_bytes
        return min(self._recipe.workspace_bytes, self._free // FREE_SHARE)


@contextlib.contextmanager
def _process(given: BinaryIO, said: BinaryIO) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the builder in a session of its own; whatever happens, it is gone afterwards."""
    told, tell = os.pipe()
    life, alive = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", PROCESS, str(tell), str(life)],
            stdin=given,
            stdout=said,
            stderr=said,
            pass_fds=(tell, life),
            start_new_session=True,
        )
    finally:
        os.close(tell)
        os.close(life)
    try:
        yield process, told
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(told)
        os.close(alive)


def _lines(told: int) -> Iterator[bytes]:
    """Yield whole lines until the other end closes; b"" now and then, so that limits hold."""
    held = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(told, selectors.EVENT_READ)
        while True:
            if waiting.select(POLL_S):
                data = os.read(told, 1 << 16)
                if not data:
                    return
                *lines, held = (held + data).split(b"\n")
                yield from lines
            yield b""


def _resident_bytes(process: int) -> int:
    """Return the memory that a process holds now, 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _too_large(memory: int) -> EngineError:
    return EngineError(f"the builder needed more than {memory // MIB} MiB of memory")


def _crash(code: int, said: BinaryIO, title: str) -> str:
    """Say how a builder ended that said nothing itself."""
    said.seek(0)
    words = said.read().decode(errors="replace").strip().splitlines()
    if code == -signal.SIGKILL:
        return "the builder was killed, most likely because the memory ran out"
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the builder of {title} ended {how}" + (f" ({words[-1][:200]})" if words else "")
