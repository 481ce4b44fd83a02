"""`edge-mil engine build|list|clear BUNDLE`: TensorRT engines, before they are needed.

An engine is built for one GPU, one TensorRT and one graph; the service builds what it lacks by
itself. This command builds without a service, and compares with the bundle's fidelity tiles.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.cli.arguments import Subparsers, add_bundle, add_json, add_state, state_folder
from edge_mil.cli.console import print_table, terminal_console
from edge_mil.errors import EdgeMilError, UsageError
from edge_mil.protocols import Progress

if TYPE_CHECKING:
    from edge_mil.backends.tensorrt.backend import TensorRtBackend
    from edge_mil.backends.tensorrt.engines.cache import EngineCache
    from edge_mil.pipeline import Model
    from edge_mil.pipeline.runners.variants import RunnerVariant

MIB = 1 << 20
NOT_RUN = "not run: this machine shows no NVIDIA GPU, so nothing is known of its numbers or speed"


def add_parser(subparsers: Subparsers) -> None:
    """Add `engine` and its three verbs."""
    parser = subparsers.add_parser(
        "engine",
        help="build, list and clear TensorRT engines",
        description="TensorRT engines of a bundle on this device. They never travel: each is built "
        "where it runs, kept under the state directory, and built again when anything that it "
        "depends on changes.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="build|list|clear", required=True)
    for name, line, run in (
        ("build", "Build what is missing, and check it against the bundle's tiles.", run_build),
        ("list", "List the engines, and the builds that failed with their reasons.", run_list),
        ("clear", "Remove a bundle's engines, and forget builds that failed.", run_clear),
    ):
        verb = verbs.add_parser(name, help=line, description=line)
        add_bundle(verb)
        add_state(verb)
        add_json(verb)
        if name == "build":
            verb.add_argument(
                "--precision",
                action="append",
                choices=("fp32", "fp16", "int8"),
                help="build this one; may be repeated (default: all that the bundle has)",
            )
        verb.set_defaults(run=run)


def run_build(arguments: argparse.Namespace) -> int:
    """Build, check, and print a line for each precision; return exit code 2 when one failed.

    Raises:
        EdgeMilError: TensorRT is not installed, the folder cannot be used, or the bundle lacks a
            graph.
    """
    from edge_mil.backends.tensorrt.backend import TensorRtBackend
    from edge_mil.pipeline import load_model
    from edge_mil.pipeline.runners.fallback import list_candidates
    from edge_mil.pipeline.runners.variants import list_variants

    bundle = open_bundle(arguments.bundle)
    of_bundle = list_variants(bundle)
    available = {
        variant.precision: variant
        for variant in list_candidates(bundle, "tensorrt", "int8")
        if variant in of_bundle
    }
    wanted = arguments.precision or list(available)
    if not wanted:
        raise UsageError(f"{bundle.manifest.name} has no extractor, so there is nothing to build.")
    for precision in wanted:
        if precision not in available:
            raise UsageError(
                f"{bundle.manifest.name} has no {precision} graph for TensorRT; it has "
                f"{', '.join(available) or 'none'}."
            )
    backend = TensorRtBackend(_cache(arguments))
    model = load_model(bundle)
    try:
        rows = [_build(model, backend, available[precision]) for precision in wanted]
    finally:
        model.close()
    if arguments.json:
        document = {"bundle": bundle.digest, "runs": backend.describe(), "engines": rows}
        print(json.dumps(document, indent=2))
    else:
        print(f"{bundle.manifest.name}, {backend.describe()}")
        print_table([(row["precision"], _line(row)) for row in rows])
    return 2 if any("error" in row for row in rows) else 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print engines and failures of a bundle."""
    bundle, cache = open_bundle(arguments.bundle), _cache(arguments)
    graphs = _graphs(bundle)
    engines: list[dict[str, Any]] = [
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
    failed: list[dict[str, Any]] = [
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
    lines = []
    for row in engines:
        device = row["device"]
        name = device["name"] if isinstance(device, dict) else "built ahead, for any device"
        line = f"{row['bytes'] / MIB:.1f} MiB, {row['library']}, {name}, {_date(row['built'])}"
        lines.append((row["precision"], f"{line}, built in {row['seconds']:.1f} s"))
    lines += [
        (row["precision"], f"failed on {_date(row['time'])}: {row['reason']}") for row in failed
    ]
    print_table(lines)
    return 0


def run_clear(arguments: argparse.Namespace) -> int:
    """Remove a bundle's engines, and the memory of builds that failed."""
    bundle, cache = open_bundle(arguments.bundle), _cache(arguments)
    count = cache.clear(_graphs(bundle))
    if arguments.json:
        print(json.dumps({"bundle": bundle.digest, "removed": count}))
    else:
        print(f"{count} files of {bundle.manifest.name} removed from {cache.root}.")
    return 0


def _build(model: Model, backend: TensorRtBackend, variant: RunnerVariant) -> dict[str, Any]:
    """Return the row of one precision; a failure is a row too, since others may succeed."""
    from edge_mil.pipeline.runners.fallback import open_verified, refuse
    from edge_mil.pipeline.runners.runner import extractor_graph

    graph = extractor_graph(model.bundle, variant)
    started = time.monotonic()
    try:
        with _progress(variant.precision) as progress:
            header, from_cache = backend.build_ahead(graph, variant.precision, progress=progress)
    except EdgeMilError as error:
        return {"precision": variant.precision, "error": str(error)}
    row: dict[str, Any] = {
        "precision": variant.precision,
        "bytes": header.plan_bytes,
        "seconds": round(time.monotonic() - started, 2),
        "from_cache": from_cache,
    }
    if backend.unavailable:
        return {**row, "check": None, "note": NOT_RUN}
    try:
        runner, check = open_verified(model, variant, backend)
    except EdgeMilError as error:
        return {**row, "error": str(error)}
    row["check"] = check.sentence()
    if check.holds:
        runner.close()
        return row
    reason = refuse(model.bundle, runner, check, backend)
    return {**row, "error": f"The engine was refused and removed: {reason}."}


@contextlib.contextmanager
def _progress(precision: str) -> Iterator[Progress]:
    """Show the progress of a build on standard error, where a terminal shows it."""
    console = terminal_console(sys.stderr)
    if console is None:
        yield lambda share: None
        return
    from rich.progress import Progress as ProgressBar

    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task(f"{precision}: building", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    how = "was there" if row["from_cache"] else f"built in {row['seconds']:.1f} s"
    return f"{row['bytes'] / MIB:.1f} MiB, {how}; {row['check'] or row['note']}"


def _cache(arguments: argparse.Namespace) -> EngineCache:
    from edge_mil.backends import ENGINES_FOLDER
    from edge_mil.backends.tensorrt.engines.cache import EngineCache

    return EngineCache(state_folder(arguments) / ENGINES_FOLDER)


def _graphs(bundle: Bundle) -> set[str]:
    """Return the SHA-256 of each extractor graph, which engines are keyed by."""
    spec = bundle.manifest.extractor
    files = [] if spec is None else list(spec.graphs.values())
    return {bundle.manifest.files[file] for file in files}


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
