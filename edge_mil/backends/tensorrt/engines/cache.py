"""The engines of this device, in a folder under the state directory that is this user's alone."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_mil.backends.tensorrt.engines.engine_file import EngineHeader, read_engine, read_header
from edge_mil.backends.tensorrt.engines.recipe import EngineKey
from edge_mil.errors import EngineError

LOG = logging.getLogger("edge_mil.engines")

ENGINE, FAILED, TIMINGS = ".engine", ".failed.json", ".timings"
PART, LOCK = ".part", ".lock"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
DAY_S = 86400
TRANSIENT_S = 3600
"""How long a build that ran out of memory or time is not tried again: a service that starts again
and again does not build each time, and one that starts the next day does."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An engine that could not be built or failed its verification; it is not built again.

    Attributes:
        key: Parts of its key.
        label: Name of its graph.
        reason: Why it failed, as a clause.
        time: When, seconds since the epoch.
        transient: Whether memory or time ran out, so that a later build may succeed.
    """

    key: dict[str, Any]
    label: str
    reason: str
    time: float
    transient: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the build may be tried again; also where the clock went back."""
        return self.transient and not 0 <= time.time() - self.time < TRANSIENT_S


class EngineCache:
    """Engines, failures and timings by key; a folder that only its user can read."""

    def __init__(self, root: Path) -> None:
        """Open the folder, and test that a file can be kept in it.

        Raises:
            EngineError: It cannot be written, or belongs to another user. This is found here, at
                the start, and not after minutes of building at every start.
        """
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(PRIVATE_FOLDER)
            with tempfile.NamedTemporaryFile(dir=root, suffix=PART) as probe:
                probe.write(b"edge-mil")
                probe.flush()
                os.fsync(probe.fileno())
            self._remove_old_parts()
        except OSError as error:
            raise EngineError(
                f"Engines cannot be kept in {root} ({error.strerror}), so each start would build "
                "them again; make the folder writable for this user, free some space, or name "
                "another with --state.",
                folder=root,
            ) from error

    def path(self, key: EngineKey) -> Path:
        """Return the path of an engine's file, whether it is there or not."""
        return self.root / (key.digest + ENGINE)

    def find(self, key: EngineKey) -> tuple[EngineHeader, bytes] | None:
        """Return header and plan of an engine that may be run, None where it must be built.

        A stale, foreign or damaged file is removed.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            return read_engine(path, key)
        except EngineError as error:
            LOG.warning("%s", error)
            path.unlink(missing_ok=True)
            return None

    def keep(self, key: EngineKey, part: Path) -> None:
        """Give a whole, synced file its name, and forget a failure of this key.

        Raises:
            EngineError: The file is not the engine of this key.
        """
        read_engine(part, key)
        part.replace(self.path(key))
        self._sync()
        self._failure_path(key).unlink(missing_ok=True)

    def remove(self, key: EngineKey) -> None:
        """Remove an engine that must not run."""
        self.path(key).unlink(missing_ok=True)

    def new_part(self) -> Path:
        """Make an empty, private file for a builder to write."""
        descriptor, name = tempfile.mkstemp(dir=self.root, suffix=PART)
        os.close(descriptor)
        return Path(name)

    def timings_path(self, key: EngineKey) -> Path:
        """Return the path of the timings that builds on this device share."""
        return self.root / (key.timing_digest + TIMINGS)

    def failure(self, key: EngineKey) -> Failure | None:
        """Return why an engine is not to be built; None where it may be."""
        failure = _read_failure(self._failure_path(key))
        return None if failure is None or failure.is_over else failure

    def remember_failure(
        self, key: EngineKey, label: str, reason: str, *, transient: bool = False
    ) -> None:
        """Remove an engine, and keep the reason; `clear` removes that too.

        Args:
            key: Of the engine.
            label: Name of its graph.
            reason: Why it failed, as a clause.
            transient: Forget the reason after TRANSIENT_S.
        """
        failure = Failure(key.parts, label, reason, time.time(), transient)
        try:
            self.path(key).unlink(missing_ok=True)
            part = self.new_part()
            part.write_text(json.dumps(asdict(failure)))
            part.replace(self._failure_path(key))
        except OSError as error:
            LOG.warning("The failure of %s is not kept (%s): %s", label, error.strerror, reason)

    @contextlib.contextmanager
    def lock(self, key: EngineKey) -> Iterator[None]:
        """Let one process at a time build an engine; a second waits, and finds it in the cache."""
        try:
            import fcntl
        except ImportError:  # Windows: two builds at once cost time, and the later one stays
            yield
            return
        path = self.root / (key.digest + LOCK)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def engines(self) -> Iterator[tuple[str, EngineHeader]]:
        """Yield the digest of the key and the header of each engine, newest first."""
        found = []
        for path in self.root.glob("*" + ENGINE):
            try:
                with path.open("rb") as file:
                    found.append((path.name[: -len(ENGINE)], read_header(file, path.name)))
            except (EngineError, OSError) as error:
                LOG.warning("%s", error)
        yield from sorted(found, key=lambda pair: -pair[1].built)

    def failures(self) -> Iterator[tuple[str, Failure]]:
        """Yield the digest of the key and the failure of each engine that failed."""
        for path in sorted(self.root.glob("*" + FAILED)):
            failure = _read_failure(path)
            if failure is not None:
                yield path.name[: -len(FAILED)], failure

    def clear(self, graphs: set[str]) -> int:
        """Remove engines and failures of some graphs, and damaged files.

        Args:
            graphs: SHA-256 of each graph, hex.

        Returns:
            The number of files removed.
        """
        kept = [(digest + ENGINE, header.key) for digest, header in self.engines()]
        kept += [(digest + FAILED, failure.key) for digest, failure in self.failures()]
        readable = {name for name, _ in kept}
        present = {
            path.name for pattern in (ENGINE, FAILED) for path in self.root.glob("*" + pattern)
        }
        names = {name for name, key in kept if key.get("graph") in graphs} | (present - readable)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.root / name).unlink()
        return len(names)

    def _remove_old_parts(self) -> None:
        """Remove files of builds that a power cut ended; no build takes a day."""
        for part in self.root.glob("*" + PART):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime < time.time() - DAY_S:
                    part.unlink()

    def _failure_path(self, key: EngineKey) -> Path:
        return self.root / (key.digest + FAILED)

    def _sync(self) -> None:
        """Wait until the new name is on the disk; Windows cannot open folders, and need not."""
        with contextlib.suppress(PermissionError):
            descriptor = os.open(self.root, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _read_failure(path: Path) -> Failure | None:
    try:
        return Failure(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
