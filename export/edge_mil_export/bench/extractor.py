"""`edge-mil bench extractor`: tiles per second of each runner of an extractor, measured in turn.

One thread, and the minimum of CPU seconds over the rounds, so that another program on the machine
does not decide. Ratios, not absolute speeds, carry over to other machines of the same kind.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.backends import open_backend
from edge_mil.bundle import Bundle, InputSpec, open_bundle
from edge_mil.errors import BundleError, DependencyError, UsageError
from edge_mil.protocols import Graph
from edge_mil.types import UInt8Array
from edge_mil_export.extractors import (
    ExtractorSource,
    Normalisation,
    TorchExtractor,
    open_extractor,
)
from edge_mil_export.extractors.timm_model import build

Run = Callable[[UInt8Array], object]

LIBRARIES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}
"""Backend -> what it runs a graph with, at true FP32 where the graph is FP32."""
FORMS = {"fp32": "FP32", "int8-cpu": "INT8 (cpu dialect)", "int8-trt": "INT8 (trt dialect)"}
REFERENCE = "ONNX Runtime FP32"


@dataclass(frozen=True, slots=True)
class Row:
    """A runner of an extractor.

    Attributes:
        name: Library, precision and dialect.
        cpu_ms: CPU milliseconds of one tile, the minimum of all rounds.
        ratio: How many times as fast as ONNX Runtime FP32.
    """

    name: str
    cpu_ms: float
    ratio: float


def add_parser(subparsers: Any) -> None:
    """Add `extractor`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "extractor",
        help="tiles per second of torch, ONNX Runtime FP32 and INT8, and OpenVINO, in turn",
        description="Compare the ways to run the extractor of a bundle: one thread, taken in turn, "
        "minimum of CPU seconds. torch needs the original: timm models are built by their name "
        "(their weights do not change the speed), others are named with --extractor.",
    )
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="with an extractor")
    parser.add_argument("--batch", type=int, default=8, help="tiles of one run (default: 8)")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each (default: 20)")
    parser.add_argument(
        "--extractor",
        metavar="KIND:WHERE",
        help="the original, where the bundle's is no timm model",
    )
    parser.add_argument("--extractor-weights", type=Path, metavar="FILE", help="its weights")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure each bundle and print its table.

    Raises:
        UsageError: A number is not positive, or the original cannot be loaded.
        BundleError: A bundle cannot be read or has no extractor.
    """
    if arguments.batch < 1 or arguments.rounds < 1:
        raise UsageError("--batch and --rounds must be 1 or more.")
    tables = []
    for path in arguments.bundles:
        bundle = open_bundle(path)
        original = original_extractor(bundle, arguments.extractor, arguments.extractor_weights)
        rows = measure(bundle, original, batch=arguments.batch, rounds=arguments.rounds)
        tables.append((bundle, rows))
        if not arguments.json:
            _print(bundle, rows, arguments.batch)
    if arguments.json:
        document = {
            "processor": platform.processor() or platform.machine(),
            "batch": arguments.batch,
            "threads": 1,
            "extractors": [_document(bundle, rows) for bundle, rows in tables],
        }
        print(json.dumps(document))
    return 0


def measure(
    bundle: Bundle, original: ExtractorSource | None, *, batch: int, rounds: int
) -> list[Row]:
    """Return a row for each runner; ONNX Runtime FP32 has the ratio 1.

    Args:
        bundle: With an extractor.
        original: What torch runs; None leaves that row out.
        batch: Tiles of one run.
        rounds: Runs of each way that count; one more warms up.
    """
    spec, given = _parts(bundle)
    tiles = np.random.default_rng(0).integers(
        0, 256, (batch, given.tile_height_px, given.tile_width_px, 3), dtype=np.uint8
    )
    runners: dict[str, Run] = {}
    if isinstance(original, TorchExtractor):
        runners["torch eager FP32"] = _torch_run(original)
    for backend, library in LIBRARIES.items():
        for precision, form in FORMS.items():
            if precision in spec.graphs:
                runner = _graph_run(backend, bundle.read(spec.graphs[precision]))
                if runner is not None:
                    runners[f"{library} {form}"] = runner
    best = dict.fromkeys(runners, float("inf"))
    for number in range(rounds + 1):
        for name, run_tiles in runners.items():
            started = time.process_time()
            run_tiles(tiles)
            spent = time.process_time() - started
            if number:
                best[name] = min(best[name], spent)
    reference = best[REFERENCE]
    return [
        Row(name, 1000 * spent / batch, reference / max(spent, 1e-9))
        for name, spent in best.items()
    ]


def _parts(bundle: Bundle) -> tuple[Any, InputSpec]:
    spec, given = bundle.manifest.extractor, bundle.manifest.input
    if spec is None or given is None:
        raise BundleError(
            f"{bundle.manifest.name} has no extractor, so there is nothing to measure; name a "
            "bundle of edge-mil-export bundle."
        )
    return spec, given


def original_extractor(
    bundle: Bundle, name: str | None = None, weights: Path | None = None
) -> ExtractorSource | None:
    """Return the extractor for torch; None where only its authors have it.

    Args:
        bundle: With an extractor.
        name: KIND:WHERE of the original; None builds a timm model by the bundle's own name.
        weights: Its file.

    Raises:
        BundleError: The bundle has no extractor.
        UsageError: The original cannot be loaded.
    """
    spec, given = _parts(bundle)
    tile_px = given.tile_height_px, given.tile_width_px
    if given.mean is not None and given.std is not None:
        normalisation: Normalisation | None = Normalisation(given.mean, given.std)
    else:
        normalisation = None
    if name is not None and not (name.startswith("timm:") and weights is None):
        text = "none"
        if normalisation is not None:
            parts = (normalisation.mean, normalisation.std)
            text = "/".join(",".join(str(number) for number in part) for part in parts)
        return open_extractor(name, weights=weights, tile_px=tile_px, normalise=text)
    kind, _, model = (name or spec.name).partition(":")
    if kind != "timm":
        return None
    return TorchExtractor(spec.name, tile_px, normalisation, build(model, tile_px))


def _torch_run(original: TorchExtractor) -> Run:
    import torch

    torch.set_num_threads(1)
    return original.features


def _graph_run(backend: str, data: bytes) -> Run | None:
    """Return a runner of a graph; None where the backend's library is not installed."""
    try:
        network = open_backend(backend, threads=1).open(Graph(data, "the extractor"))
    except DependencyError:
        return None
    return lambda tiles: network.run({"tiles": tiles})


def _document(bundle: Bundle, rows: list[Row]) -> dict[str, Any]:
    spec, given = _parts(bundle)
    return {
        "bundle": bundle.digest,
        "extractor": spec.name,
        "tile_px": [given.tile_width_px, given.tile_height_px],
        "rows": [{"name": r.name, "cpu_ms_per_tile": r.cpu_ms, "ratio": r.ratio} for r in rows],
    }


def _print(bundle: Bundle, rows: list[Row], batch: int) -> None:
    spec, given = _parts(bundle)
    tile = f"{given.tile_width_px}x{given.tile_height_px}"
    print(f"{spec.name}, tiles of {tile} px, batch {batch}, one thread")
    print(f"  {'':34}{'ratio':>7}{'cpu-ms a tile':>16}{'tiles a cpu-s':>16}")
    for row in rows:
        print(f"  {row.name:34}{row.ratio:7.2f}{row.cpu_ms:16.2f}{1000 / row.cpu_ms:16.1f}")
