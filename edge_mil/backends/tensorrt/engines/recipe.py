"""What an engine is built from, and the key under which it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_mil.backends.tensorrt.device import Device
from edge_mil.backends.tensorrt.library import Library
from edge_mil.protocols import Graph

MIB = 1 << 20
WORKSPACE_BYTES = 512 * MIB
"""Scratch memory of the kernels: an 8 GB Jetson shares its memory with the system."""
OPTIMISATION_LEVEL = 3
"""TensorRT's own default; named because a lower one is the remedy where a build is killed."""
KEY_FORMAT = 1
NO_DEVICE = "no-device"
"""In a key: built ahead of time, for no device in particular."""
MAX_SHOWN_CHARS, SHORTENED_CHARS = 20, 12
"""A value of a key longer than the first is shown in a message with as many as the second."""


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """Batch sizes: the smallest, the one to be fastest at, the largest."""

    smallest: int = 1
    usual: int = 8
    largest: int = 32

    @property
    def sizes(self) -> tuple[int, int, int]:
        """All three, in that order."""
        return self.smallest, self.usual, self.largest

    def shapes(self, dimensions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Return the three shapes of an input; in `dimensions` -1 is the batch."""
        return tuple(tuple(n if d < 0 else d for d in dimensions) for n in self.sizes)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An engine to be built.

    Attributes:
        graph: Verified against its bundle.
        precision: fp32, fp16 or int8; the graph itself holds it.
        profile: Batch sizes.
        workspace_bytes: Scratch memory at most.
        optimisation_level: How long to search for fast kernels, 0 to 5.
    """

    graph: Graph
    precision: str
    profile: BatchProfile = BatchProfile()
    workspace_bytes: int = WORKSPACE_BYTES
    optimisation_level: int = OPTIMISATION_LEVEL

    def key(self, library: Library, device: Device | None) -> EngineKey:
        """Return what the engine depends on; another value of any part is another engine."""
        return EngineKey(
            {
                "format": KEY_FORMAT,
                "graph": hashlib.sha256(self.graph.data).hexdigest(),
                "library": library.name,
                "version": library.version,
                "device": NO_DEVICE if device is None else device.key(),
                "precision": self.precision,
                "profile": list(self.profile.sizes),
                "workspace_bytes": self.workspace_bytes,
                "optimisation_level": self.optimisation_level,
                "network_flags": library.network_flags(),
            }
        )


@dataclass(frozen=True, slots=True)
class EngineKey:
    """The parts that an engine depends on, as JSON values."""

    parts: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of all parts, 64 hex digits: the name of the engine's file."""
        return _digest(self.parts)

    @property
    def timing_digest(self) -> str:
        """SHA-256 of library and device: the name of the timings that its build may share."""
        return _digest({name: self.parts[name] for name in ("library", "version", "device")})

    def difference(self, other: dict[str, Any]) -> str:
        """Return the first part in which another key differs, as "version 1.6 and not 1.7"."""
        for name in sorted(set(self.parts) | set(other)):
            mine, theirs = self.parts.get(name), other.get(name)
            if mine != theirs:
                return f"{name} {_shortened(theirs)} and not {_shortened(mine)}"
        return ""


def _digest(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _shortened(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(str(v) for v in value.values() if v)
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:SHORTENED_CHARS] + "..."
