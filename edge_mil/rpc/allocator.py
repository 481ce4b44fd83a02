"""Setting of glibc's allocator: by default it maps each frame's buffer anew, half of its cost."""

from __future__ import annotations

import contextlib
import ctypes

MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES = 64 << 20, 256 << 20
"""The largest frame, and several of them: what is freed stays with the process for the next one."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of mallopt's parameters in malloc.h."""


def tune_allocator() -> None:
    """Serve buffers up to 64 MiB from the heap, for this whole process; call it once at start.

    With 15 MB frames this took client and service from 26 to 16 ms of CPU per frame
    (`docs/design/serving-and-durability.md`, "The allocator"). Without glibc (Windows, macOS, musl)
    it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
