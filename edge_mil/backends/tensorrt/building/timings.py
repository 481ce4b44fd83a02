"""TensorRT's timings of kernels, in a file that is verified before TensorRT reads it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edge_mil.backends.tensorrt.engines.cache import PRIVATE_FILE

DIGEST_BYTES = 32
"""SHA-256 of the timings, in front of them."""


def read_timings(path: Path) -> bytes:
    """Return timings; b"" where there are none, and where they are damaged, which removes them."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    digest, timings = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if hashlib.sha256(timings).digest() != digest:
        path.unlink(missing_ok=True)
        return b""
    return timings


def write_timings(path: Path, timings: bytes) -> None:
    """Replace the file in one step.

    Raises:
        OSError: The disk is full.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.touch(PRIVATE_FILE)
        part.write_bytes(hashlib.sha256(timings).digest() + timings)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
