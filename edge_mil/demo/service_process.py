"""Run `edge-mil serve` in a process of its own, as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from edge_mil.client import Client
from edge_mil.errors import ServiceUnavailableError

START_S = 60.0
"""A cold start reads ONNX Runtime and OpenCV from the disk: seconds, a minute on a slow one."""
STOP_S = 10.0
POLL_S = 0.1
LONGEST_SOCKET_PATH = 90
"""Linux allows 107 bytes, macOS 103; the rest is spare."""


class ServiceProcess:
    """A service that starts with a `with` block and ends with it, whatever happens inside.

    Attributes:
        address: Where it listens, as a client takes it.
    """

    def __init__(self, bundle: Path, state: Path, *options: str) -> None:
        """Prepare the service; `with` starts it.

        Args:
            bundle: The bundle.
            state: Folder for the sessions; the log and the socket lie there too.
            options: Further options of `edge-mil serve`.
        """
        self._bundle, self._state, self._options = bundle, state, options
        self.address = _address(state)
        self._log = state / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServiceProcess:
        """Start the service and wait until it answers.

        Raises:
            ServiceUnavailableError: It ended, or did not answer in time; the message holds the last
                line of its log.
        """
        command = [sys.executable, "-m", "edge_mil.cli", "serve"]
        command += ["--bundle", str(self._bundle), "--listen", self.address]
        command += ["--state", str(self._state), *self._options]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C is for the demo, which then ends the service in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=os.name == "posix",
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the service by SIGTERM, and by SIGKILL where it does not end in time."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        with Client(self.address, connect_timeout_s=0.0, call_timeout_s=2.0) as client:
            while True:
                if self._process is not None and self._process.poll() is not None:
                    raise ServiceUnavailableError(
                        f"edge-mil serve ended by itself: {self._last_log_line()}"
                    )
                try:
                    client.server_info()
                except ServiceUnavailableError:
                    if time.monotonic() > until:
                        raise ServiceUnavailableError(
                            f"edge-mil serve did not answer within {START_S:g} s: "
                            f"{self._last_log_line()}"
                        ) from None
                    time.sleep(POLL_S)
                else:
                    return

    def _last_log_line(self) -> str:
        lines = []
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty."


def _address(state: Path) -> str:
    path = str((state / "demo.sock").resolve())
    # A socket file needs no free port, but gRPC has none on Windows, and its path must be short.
    if os.name == "posix" and len(path.encode()) <= LONGEST_SOCKET_PATH:
        return f"unix:{path}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
