"""An engine's file: a header of ours in front of the plan, verified before TensorRT reads it.

A plan is code: deserialising a foreign one runs it. So a plan is only handed on when its file is
this user's own, its header is whole, it was built for exactly this key, and its digest is right.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edge_mil.backends.tensorrt.engines.recipe import EngineKey
from edge_mil.errors import EngineError

MAGIC = b"EDGE-MIL ENGINE1"
LENGTH = struct.Struct("<Q")
DIGEST_BYTES = 32
MAX_HEADER_BYTES = 1 << 20
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
SHOWN_CHARS = 12
"""Of a file's name in a message: enough to find it."""


@dataclass(frozen=True, slots=True)
class EngineHeader:
    """What is known of a plan without reading it.

    Attributes:
        key: Parts of the key that it was built for.
        label: Name of its graph.
        plan_bytes: Length of the plan.
        plan_sha256: Its digest, hex.
        built: When, seconds since the epoch.
        seconds: How long the build took.
    """

    key: dict[str, Any]
    label: str
    plan_bytes: int
    plan_sha256: str
    built: float
    seconds: float


def write_engine(
    file: BinaryIO, key: EngineKey, label: str, plan: memoryview, built: float, seconds: float
) -> EngineHeader:
    """Write header and plan, and wait until they are on the disk."""
    digest = hashlib.sha256(plan).hexdigest()
    header = EngineHeader(key.parts, label, plan.nbytes, digest, built, seconds)
    text = json.dumps(
        {name: getattr(header, name) for name in EngineHeader.__slots__}, sort_keys=True
    ).encode()
    for part in (MAGIC, LENGTH.pack(len(text)), text, hashlib.sha256(text).digest(), plan):
        file.write(part)
    file.flush()
    os.fsync(file.fileno())
    return header


def read_header(file: BinaryIO, name: str) -> EngineHeader:
    """Read the header; the file's position is then the start of the plan.

    Raises:
        EngineError: The file is no engine of ours, or damaged.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise _unusable(name, "it is no engine file of edge_mil")
    length = file.read(LENGTH.size)
    size = LENGTH.unpack(length)[0] if len(length) == LENGTH.size else 0
    if not 0 < size <= MAX_HEADER_BYTES:
        raise _unusable(name, "its header is damaged")
    text = file.read(size)
    if hashlib.sha256(text).digest() != file.read(DIGEST_BYTES):
        raise _unusable(name, "its header is damaged")
    try:
        return EngineHeader(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise _unusable(name, "its header is of another version") from error


def read_engine(path: Path, key: EngineKey) -> tuple[EngineHeader, bytes]:
    """Return the header and the plan of an engine that may be run here.

    Raises:
        EngineError: The file is damaged, stale, was built for something else, or others could
            have written it; it must be built again.
    """
    try:
        with path.open("rb") as file:
            _check_owner(os.fstat(file.fileno()), path.name)
            header = read_header(file, path.name)
            difference = key.difference(header.key)
            if difference:
                raise _unusable(path.name, f"it was built for {difference}")
            plan = file.read()
    except OSError as error:
        raise _unusable(path.name, f"it cannot be read ({error.strerror})") from error
    if len(plan) != header.plan_bytes or hashlib.sha256(plan).hexdigest() != header.plan_sha256:
        raise _unusable(path.name, "its plan is damaged")
    return header, plan


def _check_owner(status: os.stat_result, name: str) -> None:
    if not hasattr(os, "geteuid"):
        return  # Windows: the folder lies in the user's own profile
    if status.st_uid != os.geteuid():
        raise _unusable(name, f"it belongs to user {status.st_uid}")
    if status.st_mode & OTHERS_MAY_WRITE:
        raise _unusable(name, "other users may write to it")


def _unusable(name: str, why: str) -> EngineError:
    return EngineError(
        f"Engine {name[:SHOWN_CHARS]} is not run: {why}; it is built again.", why=why
    )
