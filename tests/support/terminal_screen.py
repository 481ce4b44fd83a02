"""Run a program in a terminal of 80 columns, and read what it shows there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Literal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLUMNS, LINES = 80, 24


def in_a_terminal(
    program: str, *words: str, output: Literal["stdout", "stderr"] = "stdout", **environment: str
) -> str:
    """Return what a Python program writes to one output, which is a terminal; it must succeed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    absent = {"CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
    clean = {name: value for name, value in os.environ.items() if name not in absent}
    streams = {"stdout": subprocess.DEVNULL, "stderr": None, output: theirs}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=subprocess.DEVNULL,
        env={**clean, "TERM": "xterm-256color", **environment},
        **streams,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the last writer has closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n")
