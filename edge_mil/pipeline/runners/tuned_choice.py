"""The variant that runs a bundle fastest on this device: `tune` writes it, `serve` reads it."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_mil.backends.onnx_runtime import available_cores
from edge_mil.backends.tensorrt.device import find_device
from edge_mil.bundle import Bundle
from edge_mil.errors import StoreError
from edge_mil.pipeline.runners.autotune import Tuning
from edge_mil.pipeline.runners.variants import VARIANTS, RunnerVariant

SCHEMA = 1
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
"""A new release of one may be faster, or no longer right."""
CPU_INFO, BOARD = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
PRIVATE_FOLDER = 0o700
TUNED_FOLDER = "tuned"
"""Folder under the state directory where tuned variants are kept."""


@dataclass(frozen=True, slots=True)
class TunedVariant:
    """The variant that was kept, and the measurements behind it.

    Attributes:
        variant: What to run.
        document: The file's content, as `tune --json` prints it.
    """

    variant: RunnerVariant
    document: dict[str, Any]


def this_device() -> dict[str, Any]:
    """Return what a measurement depends on: processor, cores, GPU with power mode, libraries."""
    gpu = find_device()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": available_cores(),
        "gpu": None if gpu is None else gpu.key(),
        "libraries": versions,
    }


def processor() -> str:
    """Return the name of the board, else of the processor, as the system has it."""
    if BOARD.is_file():
        return BOARD.read_text(errors="replace").strip("\0 \n")
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class TunedStore:
    """The tuned variants of one device, one file for each bundle, under the state directory."""

    def __init__(self, state: Path) -> None:
        self.folder = state / TUNED_FOLDER

    def path(self, bundle: Bundle) -> Path:
        """Return the path of a bundle's file."""
        return self.folder / f"{bundle.digest.removeprefix('sha256:')}.json"

    def save(self, bundle: Bundle, tuning: Tuning, threads: int | None) -> TunedVariant:
        """Write what was measured, in place of what the file held.

        Raises:
            StoreError: The file cannot be written.
        """
        document = describe(bundle, tuning, threads)
        path = self.path(bundle)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".new")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error.strerror}); check the folder's rights and free "
                "space, or name another --state."
            ) from error
        return TunedVariant(tuning.kept, document)

    def load(self, bundle: Bundle) -> TunedVariant | None:
        """Return a bundle's tuned variant; None where none is stored, or the device has changed."""
        try:
            document = json.loads(self.path(bundle).read_text(encoding="utf-8"))
            kept = document["kept"]["backend"], document["kept"]["graph"]
            same = document["schema"] == SCHEMA and document["device"] == this_device()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        for variant in VARIANTS:
            if same and (variant.backend, variant.graph) == kept:
                return TunedVariant(variant, document)
        return None

    def all(self) -> list[dict[str, Any]]:
        """Return every stored document that can be read."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(document, dict) and document.get("schema") == SCHEMA:
                found.append(document)
        return found


def describe(bundle: Bundle, tuning: Tuning, threads: int | None) -> dict[str, Any]:
    """Return a tuning as JSON."""
    return {
        "schema": SCHEMA,
        "bundle": bundle.digest,
        "name": bundle.manifest.name,
        "extractor": bundle.manifest.extractor.name if bundle.manifest.extractor else "",
        "device": this_device(),
        "threads": threads,
        "batches": list(tuning.batches),
        "rounds": tuning.rounds,
        "clock": tuning.clock,
        "kept": {"backend": tuning.kept.backend, "graph": tuning.kept.graph},
        "rows": [
            {
                "name": row.name,
                "backend": row.backend,
                "precision": row.precision,
                "tile_ms": list(row.tile_ms),
                "check": None if row.check is None else asdict(row.check),
                "reason": row.reason,
                "kept": row.variant == tuning.kept,
            }
            for row in tuning.rows
        ],
    }
