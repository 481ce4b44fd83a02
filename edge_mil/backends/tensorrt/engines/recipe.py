"""What an engine is built from, and the key that it is kept under."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from edge_mil.backends.tensorrt.device import Device
from edge_mil.backends.tensorrt.library import Library

MIB = 1 << 20
WORKSPACE_BYTES = 512 * MIB
"""Scratch memory of the kernels: an 8 GB Jetson shares its memory with the system."""
FREE_SHARE = 4
"""A build takes at most this part of the memory that is free: one quarter."""
OPTIMISATION_LEVEL = 3
"""TensorRT's own default; named because a lower one is the remedy where a build is killed."""
KEY_FORMAT = 1
NO_DEVICE = "no-device"
"""In a key: built ahead of time, for whichever device it is run on."""


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """Batch sizes: the smallest, the one to be fastest at, the largest."""

    smallest: int = 1
    usual: int = 8
    largest: int = 32

    def shape(self, dimensions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Return the three shapes of an input; -1 is the batch."""
        sizes = (self.smallest, self.usual, self.largest)
        return tuple(tuple(n if d < 0 else d for d in dimensions) for n in sizes)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An engine to be built.

    Attributes:
        model: The ONNX graph, verified against its bundle.
        label: For people, "extractor.int8.trt.onnx of lite0".
        precision: fp32, fp16 or int8; the graph itself holds it.
        profile: Batch sizes.
        workspace_bytes: Scratch memory at most.
        optimisation_level: How long to search for fast kernels, 0 to 5.
    """

    model: bytes
    label: str
    precision: str
    profile: BatchProfile = BatchProfile()
    workspace_bytes: int = WORKSPACE_BYTES
    optimisation_level: int = OPTIMISATION_LEVEL

    def key(self, library: Library, device: Device | None) -> EngineKey:
        """Return what the engine depends on; another value of any part is another engine."""
        profile = self.profile
        return EngineKey(
            {
                "format": KEY_FORMAT,
                "graph": hashlib.sha256(self.model).hexdigest(),
                "library": library.name,
                "version": library.version,
                "device": NO_DEVICE if device is None else device.key(),
                "precision": self.precision,
                "profile": [profile.smallest, profile.usual, profile.largest],
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
        """64 hex digits: the name of its file."""
        text = json.dumps(self.parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def timing_digest(self) -> str:
        """Name of the timings that its build may share: one library on one device."""
        shared = {name: self.parts[name] for name in ("library", "version", "device")}
        text = json.dumps(shared, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(self, other: dict[str, Any]) -> str:
        """Say which part of another key is not this one's: "version 1.6 and not 1.7"."""
        for name in sorted(set(self.parts) | set(other)):
            mine, theirs = self.parts.get(name), other.get(name)
            if mine != theirs:
                return f"{name} {_short(theirs)} and not {_short(mine)}"
        return ""


def _short(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(str(v) for v in value.values() if v)
    text = str(value)
    return text if len(text) <= 20 else text[:12] + "..."
