"""`edge-mil bench [NAME]`: list the benchmarks of this installation, or run one."""

from __future__ import annotations

import argparse
import importlib
import json
from importlib import metadata
from types import ModuleType
from typing import Any

from edge_mil.errors import UsageError

GROUP = "edge_mil.bench"
"""Entry points: name -> a module with `add_parser(subparsers)`, as every command has.

The runtime never imports the exporter, so the exporter offers its benchmark this way.
"""

OWN = {
    "stream": "edge_mil.cli.bench.stream",
    "imaging": "edge_mil.cli.bench.imaging",
}
"""Benchmark -> module, for those that every device has."""

LINES = {
    "stream": "fields per second through gRPC, in process and of the bare extractor; time and "
    "memory of a field as the bag grows",
    "imaging": "milliseconds of a camera field on one core, step by step, next to bare calls",
    "aggregators": "milliseconds of a new field next to the whole bag again, for every head",
    "extractor": "tiles per second of torch, ONNX Runtime FP32 and INT8, and OpenVINO, in turn",
}
"""Benchmark -> its line in the list."""


def add_parser(subparsers: Any) -> None:
    """Add `bench`; the arguments after the name go to the benchmark's own parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure this machine",
        description="Measure this machine. Without a name: list what can be measured here.",
        epilog="edge-mil bench NAME --help says more about each. Names: "
        + "; ".join(f"{name} ({line})" for name, line in LINES.items()),
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="what to measure")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the benchmarks, or run the one that is named.

    Raises:
        UsageError: There is no benchmark of that name.
        DependencyError: It needs a package that is not installed.
    """
    from edge_mil.argument_parser import Parser
    from edge_mil.cli import missing_package

    installed = _installed()
    if not arguments.name:
        _print_list(installed, as_json=arguments.json)
        return 0
    name = arguments.name
    if name not in installed:
        raise UsageError(
            f"There is no benchmark {name!r}; there are {', '.join(sorted(installed))}."
        )
    parser = Parser(prog="edge-mil bench")
    try:
        module: ModuleType = importlib.import_module(installed[name])
        module.add_parser(parser.add_subparsers(dest="name", required=True))
        chosen = parser.parse_args([name, *arguments.rest])
        code: int = chosen.run(chosen)
    except ModuleNotFoundError as error:
        raise missing_package(error, f"bench {name}") from error
    return code


def _installed() -> dict[str, str]:
    """Return the benchmarks of this installation, name -> module."""
    offered = {point.name: point.value for point in metadata.entry_points(group=GROUP)}
    return {**offered, **OWN}


def _print_list(installed: dict[str, str], *, as_json: bool) -> None:
    rows = [(name, LINES.get(name, installed[name])) for name in sorted(installed)]
    if as_json:
        listed = [{"name": name, "measures": line} for name, line in rows]
        print(json.dumps({"benchmarks": listed}))
        return
    for name, line in rows:
        print(f"{name:12} {line}")
