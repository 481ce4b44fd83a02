"""What this device was found to run a bundle fastest with: written by `tune`, read by `serve`."""

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
from edge_mil.pipeline.runners.variants import RunnerVariant

SCHEMA = 1
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
"""A new release of one may be faster, or no longer right."""
CPU_INFO, BOARD = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")


@dataclass(frozen=True, slots=True)
class TunedVariant:
    """A kept way, and the table behind it.

    Attributes:
        way: What to run.
        document: All that the file holds, as `tune --json` prints it.
    """

    way: RunnerVariant
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
    """Return the board's or the processor's name, as far as the system says it."""
    if BOARD.is_file():
        return BOARD.read_text(errors="replace").strip("\0 \n")
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class TunedStore:
    """The choices of one device, one file for each bundle."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "tuned"

    def path(self, bundle: Bundle) -> Path:
        """Return where the choice for a bundle is."""
        return self.folder / f"{bundle.digest.removeprefix('sha256:')}.json"

    def save(self, bundle: Bundle, tuning: Tuning, threads: int | None) -> TunedVariant:
        """Write what was measured; the file is replaced in one step.

        Raises:
            StoreError: It cannot be written.
        """
        document = describe(bundle, tuning, threads)
        path = self.path(bundle)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        """Return the choice for a bundle; None where there is none, or the device has changed."""
        try:
            document = json.loads(self.path(bundle).read_text(encoding="utf-8"))
            way = RunnerVariant(document["kept"]["backend"], document["kept"]["graph"])
            same = document["schema"] == SCHEMA and document["device"] == this_device()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return TunedVariant(way, document) if same else None

    def all(self) -> list[dict[str, Any]]:
        """Return every stored document that can be read, for `doctor`."""
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
                "kept": row.way == tuning.kept,
            }
            for row in tuning.rows
        ],
    }
