"""Runs a command with no network but loopback, and skips clearly where that is forbidden."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

# A namespace of its own has only a loopback that is down; the service and its client need it up.
# Python does that, since a bare machine may have no `ip`: SIOCSIFFLAGS sets IFF_UP | IFF_RUNNING.
LOOPBACK_UP = (
    "import fcntl, os, socket, struct, sys\n"
    "s = socket.socket()\n"
    "fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 0x41))\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


def run_without_network(
    words: Sequence[str],
    *,
    python: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace without a route.

    Args:
        words: The command.
        python: An interpreter, which brings the loopback up.
        cwd: Where it runs.
        environment: Added to that of this process.
        timeout_s: After this the test fails.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare (Linux, util-linux) to cut the network")
    prefix = [unshare, "--map-root-user", "--net"]
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"this machine does not allow network namespaces: {probe.stderr.strip()}")
    return subprocess.run(
        [*prefix, python, "-c", LOOPBACK_UP, *words],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
