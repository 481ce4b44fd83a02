"""`edge-mil engine build|list|clear BUNDLE`: TensorRT engines, before they are needed.

An engine is built for one GPU, one TensorRT and one graph; the service builds what it lacks by
itself. Building here does it without a service running, and ends with the bundle's fidelity tiles.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.errors import EdgeMilError, EngineError, UsageError

if TYPE_CHECKING:
    from edge_mil.backends.tensorrt.backend import TensorRtBackend
    from edge_mil.pipeline import Model

MIB = 1 << 20
NOT_RUN = "not run: this machine shows no NVIDIA GPU, so nothing is known of its numbers or speed"
STEP = 0.1


def add_parser(subparsers: Any) -> None:
    """Add `engine` and its three verbs."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "engine",
        help="build, list and clear TensorRT engines",
        description="TensorRT engines of a bundle on this device. They never travel: each is built "
        "where it runs, kept under the state directory, and built again when anything that it "
        "depends on changes.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="build|list|clear", required=True)
    for name, line, run in (
        ("build", "Build what is missing, and check it against the bundle's tiles.", run_build),
        ("list", "Say which engines are there, and which builds failed and why.", run_list),
        ("clear", "Remove a bundle's engines, and forget builds that failed.", run_clear),
    ):
        verb = verbs.add_parser(name, help=line, description=line)
        verb.add_argument("bundle", metavar="BUNDLE", help="a folder, or a packed .milb")
        verb.add_argument(
            "--state", type=Path, metavar="DIR", help="state directory of the service"
        )
        verb.add_argument("--json", action="store_true", help="print one JSON document")
        if name == "build":
            verb.add_argument(
                "--precision",
                action="append",
                choices=("fp32", "fp16", "int8"),
                help="build this one; may be repeated (default: all that the bundle has)",
            )
        verb.set_defaults(run=run)


def run_build(arguments: argparse.Namespace) -> int:
    """Build, check, and print a line for each precision; exit code 2 when one failed.

    Raises:
        EdgeMilError: TensorRT is not installed, the folder cannot be used, or the bundle lacks it.
    """
    from edge_mil.backends.tensorrt.backend import TensorRtBackend
    from edge_mil.backends.tensorrt.engines.cache import EngineCache
    from edge_mil.pipeline import Model
    from edge_mil.pipeline.runners.fallback import FALLBACK_ORDER, GRAPHS

    bundle = open_bundle(arguments.bundle)
    spec = bundle.manifest.extractor
    had = [p for p in FALLBACK_ORDER if spec is not None and GRAPHS[p] in spec.graphs]
    wanted = arguments.precision or had
    if not wanted:
        raise UsageError(f"{bundle.manifest.name} has no extractor, so there is nothing to build.")
    for precision in wanted:
        if precision not in had:
            raise UsageError(
                f"{bundle.manifest.name} has no {precision} graph for TensorRT; it has "
                f"{', '.join(had) or 'none'}."
            )
    backend = TensorRtBackend(EngineCache(_engines(arguments)))
    model = Model.load(bundle)
    try:
        rows = [_build(model, backend, precision) for precision in wanted]
    finally:
        model.close()
    if arguments.json:
        document = {"bundle": bundle.digest, "runs": backend.describe(), "engines": rows}
        print(json.dumps(document, indent=2))
    else:
        print(f"{bundle.manifest.name}, {backend.describe()}")
        for row in rows:
            print(f"  {row['precision']:5} {_line(row)}")
    return 2 if any("error" in row for row in rows) else 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print engines and failures of a bundle."""
    bundle, cache = open_bundle(arguments.bundle), _cache(arguments)
    graphs = _graphs(bundle)
    engines = [
        {
            "engine": digest,
            "graph": header.label,
            "precision": header.key.get("precision"),
            "library": f"{header.key.get('library')} {header.key.get('version')}",
            "device": header.key.get("device"),
            "bytes": header.plan_bytes,
            "built": header.built,
            "seconds": header.seconds,
        }
        for digest, header in cache.engines()
        if header.key.get("graph") in graphs
    ]
    failed = [
        {
            "engine": digest,
            "graph": failure.label,
            "precision": failure.key.get("precision"),
            "reason": failure.reason,
            "time": failure.time,
        }
        for digest, failure in cache.failures()
        if failure.key.get("graph") in graphs
    ]
    if arguments.json:
        document = {"bundle": bundle.digest, "engines": engines, "failed": failed}
        print(json.dumps(document, indent=2))
        return 0
    if not engines and not failed:
        print(f"{bundle.manifest.name} has no engines in {cache.root}.")
    for row in engines:
        device = row["device"]
        where = device["name"] if isinstance(device, dict) else "built ahead, for any device"
        print(
            f"{row['precision']:5} {row['bytes'] / MIB:.1f} MiB, {row['library']}, {where}, "
            f"{_date(row['built'])}, built in {row['seconds']:.1f} s"
        )
    for row in failed:
        print(f"{row['precision']:5} failed on {_date(row['time'])}: {row['reason']}")
    return 0


def run_clear(arguments: argparse.Namespace) -> int:
    """Remove a bundle's engines, and what is remembered of builds that failed."""
    bundle, cache = open_bundle(arguments.bundle), _cache(arguments)
    count = cache.clear(_graphs(bundle))
    if arguments.json:
        print(json.dumps({"bundle": bundle.digest, "removed": count}))
    else:
        print(f"{count} files of {bundle.manifest.name} removed from {cache.root}.")
    return 0


def _build(model: Model, backend: TensorRtBackend, precision: str) -> dict[str, Any]:
    """Return what came of one precision; a failure is a row too, since others may work."""
    from edge_mil.pipeline.runners.fallback import recipe_of
    from edge_mil.pipeline.runners.runner import Runner
    from edge_mil.pipeline.runners.verification import check_runner

    recipe = recipe_of(model.bundle, precision)
    assert recipe is not None
    shown = _Progress(precision)
    started = time.monotonic()
    try:
        plan = backend.build(recipe, on_progress=shown.tell)
    except EngineError as error:
        return {"precision": precision, "error": str(error)}
    finally:
        shown.end()
    row: dict[str, Any] = {
        "precision": precision,
        "bytes": len(plan),
        "seconds": round(time.monotonic() - started, 2),
        "from_cache": not shown.told,
    }
    if backend.device is None:
        return {**row, "check": None, "note": NOT_RUN}
    try:
        network = backend.open(plan, recipe.label)
        try:
            check = check_runner(model, Runner(network, precision, backend.describe(), "tensorrt"))
        finally:
            network.close()
    except EdgeMilError as error:
        return {**row, "error": str(error)}
    row["check"] = check.sentence()
    if check.holds:
        return row
    key = recipe.key(backend.library, backend.device)
    why = f"it is outside of the bundle's bound: {check.sentence()}"
    backend.cache.remove(key)
    backend.cache.remember(key, recipe.label, why)
    return {**row, "error": f"The engine was refused and removed: {why}."}


class _Progress:
    """A line on standard error that says how far a build is, where a terminal shows it."""

    def __init__(self, precision: str) -> None:
        self._precision, self.told = precision, 0.0

    def tell(self, share: float) -> None:
        if share >= self.told + STEP or share == 1:
            self.told = share
            self._write(f"\r{self._precision}: building {share * 100:3.0f} %")

    def end(self) -> None:
        if self.told:
            self._write("\n")

    def _write(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(text)
            sys.stderr.flush()


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    how = "was there" if row["from_cache"] else f"built in {row['seconds']:.1f} s"
    return f"{row['bytes'] / MIB:.1f} MiB, {how}; {row['check'] or row['note']}"


def _engines(arguments: argparse.Namespace) -> Path:
    from edge_mil.session import default_state_folder

    state: Path = arguments.state or default_state_folder()
    return state / "engines"


def _cache(arguments: argparse.Namespace) -> Any:
    from edge_mil.backends.tensorrt.engines.cache import EngineCache

    return EngineCache(_engines(arguments))


def _graphs(bundle: Bundle) -> set[str]:
    """Return the SHA-256 of each extractor graph: what engines are keyed by."""
    spec = bundle.manifest.extractor
    files = [] if spec is None else list(spec.graphs.values())
    return {bundle.manifest.files[file] for file in files}


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
