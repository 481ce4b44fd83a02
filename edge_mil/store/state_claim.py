"""A state directory belongs to one service at a time, and must take what a service writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import time
from pathlib import Path

from edge_mil.errors import StoreBusyError, StoreDeniedError, StoreError, StoreFullError
from edge_mil.store.connection import connect, sync_folder
from edge_mil.store.faults import system_error

LOCK = "service.lock"
PROBE = ".probe"
SMALLEST_FREE_BYTES = 64 << 20
"""Free space that a service needs at its start: about a thousand fields of 64 KB
(`docs/design/serving-and-durability.md`, "The store")."""
LONGEST_NAME = 200
"""Characters of the owner's name that are shown."""


class StateClaim:
    """The right of this process to a state directory, until `release` or the process' end."""

    def __init__(self, state: Path, owner: str) -> None:
        """Claim a state directory, made where it is missing, and try what a service needs of it.

        Args:
            state: The directory.
            owner: What the next one who asks is told of this process, as "edge-mil serve".

        Raises:
            StoreBusyError: Another process has it; the message names that one.
            StoreDeniedError: It cannot be made, written or locked.
            StoreFullError: Its disk is full.
        """
        self.state = state
        self._handle = -1
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise system_error(error, f"The state directory {state} cannot be used") from error
        try:
            self._lock(owner)
            _try_out(state)
            _clean(state)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the directory back."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = -1

    def _lock(self, owner: str) -> None:
        try:
            import fcntl

            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # no such lock on Windows; the port of the service is the guard there
        except BlockingIOError:
            said = os.pread(self._handle, LONGEST_NAME, 0).decode(errors="replace")
            name = "".join(c for c in said if c.isprintable()) or "another process"
            os.close(self._handle)  # before `release`, which would wipe that one's name
            self._handle = -1
            raise StoreBusyError(
                f"The state directory {self.state} is in use by {name}; stop that one, or name "
                "another --state."
            ) from None
        except OSError as error:
            raise StoreDeniedError(
                f"The state directory {self.state} cannot be locked ({error.strerror}); name a "
                "--state on a disk of this machine."
            ) from error
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        name = f"{owner}, process {os.getpid()} on {socket.gethostname()}, since {since}"
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, name.encode(), 0)
        except OSError as error:
            raise system_error(error, f"The state directory {self.state} is full") from error


def _try_out(state: Path) -> None:
    """Do once what every session does: a folder, a database, a durable commit, a new name."""
    what = f"The state directory {state} cannot be used"
    probe = state / PROBE
    shutil.rmtree(probe, ignore_errors=True)
    try:
        free = shutil.disk_usage(state).free
        if free < SMALLEST_FREE_BYTES:
            raise StoreFullError(
                f"The disk of {state} has {free >> 20} MB left, and a service needs "
                f"{SMALLEST_FREE_BYTES >> 20} MB to start; free some space, or name another "
                "--state.",
                free_bytes=free,
            )
        sessions = state / "sessions"
        sessions.mkdir(exist_ok=True, mode=0o700)
        for folder in (state, sessions):
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(1, "not readable and writable", str(folder))
        probe.mkdir(mode=0o700)
        with contextlib.closing(connect(probe / "probe.db")) as connection:
            connection.execute("CREATE TABLE probe (x)")
        probe.rename(state / f"{PROBE}ed")
        sync_folder(state)
    except OSError as error:
        raise system_error(error, what) from error
    except sqlite3.Error as error:
        raise StoreDeniedError(
            f"{what}: its disk does not take a database ({error}); name a --state on a disk of "
            "this machine."
        ) from error
    finally:
        shutil.rmtree(probe, ignore_errors=True)
        shutil.rmtree(state / f"{PROBE}ed", ignore_errors=True)


def _clean(state: Path) -> None:
    """Remove the folders of sessions whose opening was cut off: no client knows of them."""
    try:
        names = [name for name in os.listdir(state / "sessions") if name.startswith(".")]
    except OSError as error:
        raise StoreError(f"{state / 'sessions'} cannot be read ({error.strerror}).") from error
    for name in names:
        shutil.rmtree(state / "sessions" / name, ignore_errors=True)
