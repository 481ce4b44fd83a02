"""`edge-mil-export audit`: test whether a head can score high because something is absent."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mil_export.commands import head_options

if TYPE_CHECKING:
    from edge_mil_export.audit.table import Audited

DESCRIPTION = (
    "Train a head from scratch on the three algorithmic unit tests of Raff and Holt (2023) and "
    "say whether it can break the rule that a slide is positive because of what is in it. It is a "
    "test of the architecture, never of a checkpoint's weights."
)


def add_parser(subparsers: Any) -> None:
    """Add `audit`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "audit", help="test whether a head can score high by absence", description=DESCRIPTION
    )
    parser.add_argument(
        "head", metavar="BUNDLE|ARCH|all", help="a bundle, an architecture's name, or all of them"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="trainings of each test (default: 5)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="heads trained at once (default: one a core)"
    )
    parser.add_argument(
        "--arch-option",
        action="append",
        default=[],
        metavar="K=V",
        help="option of a named architecture; the others have a common value, which is shown",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="also write the result as JSON into a file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train the heads and print the table.

    Raises:
        UsageError: The head or an option is unknown.
    """
    from edge_mil.errors import UsageError
    from edge_mil_export.audit.table import markdown

    options = head_options.parse_options(arguments.arch_option)
    for name in ("seeds", "jobs"):
        number = getattr(arguments, name)
        if number is not None and number < 1:
            raise UsageError(f"--{name} {number} must be 1 or more.")
    if arguments.head == "all" and options:
        raise UsageError("--arch-option belongs to one architecture; name it instead of all.")
    rows: list[Audited] = []
    start = time.perf_counter()
    chosen = _chosen(arguments.head, options)
    jobs = min(arguments.jobs or os.cpu_count() or 1, len(chosen))
    for row in _audited(chosen, arguments.seeds, jobs):
        rows.append(row)
        if arguments.write is not None:
            arguments.write.write_text(_document(rows, indent=1) + "\n", encoding="utf-8")
    minutes = (time.perf_counter() - start) / 60
    print(_document(rows) if arguments.json else _page(markdown(rows), rows, minutes))
    return 0


def _audited(
    chosen: list[tuple[str, dict[str, str]]], seeds: int | None, jobs: int
) -> Iterator[Audited]:
    """Yield each head's result in the order chosen; several are trained at once, a process each."""
    from edge_mil.errors import NotThereYetError

    # spawn: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {
            name: pool.submit(_audit, name, given, seeds)
            for name, given in chosen
            if jobs > 1 and _is_shipped(name)
        }
        for name, given in chosen:
            try:
                yield waiting[name].result() if name in waiting else _audit(name, given, seeds)
            except NotThereYetError:
                if len(chosen) == 1:
                    raise
                print(f"edge-mil-export: {name} has no fresh weights, left out", file=sys.stderr)


def _is_shipped(name: str) -> bool:
    """Return whether another process has a head: not one that a user's program registered."""
    from edge_mil_export.architectures.registry import variants

    found = next((v for v in variants() if v.name == name), None)
    return found is None or found.architecture.build.__module__.startswith("edge_mil_export.")


def _chosen(head: str, options: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return the heads to train, each with the options that the user or the bundle gives."""
    from edge_mil.bundle import open_bundle
    from edge_mil.errors import UsageError
    from edge_mil_export.architectures.registry import variants
    from edge_mil_export.audit.references import REFERENCES

    if head == "all":
        return [(name, {}) for name in [*REFERENCES, *(v.name for v in variants())]]
    if not Path(head).exists():
        return [(head, options)]
    if options:
        raise UsageError("A bundle says its own options; leave --arch-option out.")
    spec = open_bundle(head).manifest.aggregator
    return [(spec.architecture, {k: str(v) for k, v in spec.options.items() if k != "weights"})]


def _audit(name: str, options: dict[str, str], seeds: int | None) -> Audited:
    from torch import nn

    from edge_mil.errors import UsageError
    from edge_mil_export.architectures.building import fresh_head
    from edge_mil_export.audit.references import REFERENCES
    from edge_mil_export.audit.table import Audited
    from edge_mil_export.audit.training import CLASSES, SEEDS, SLOW_SIZES, Sizes, audit
    from edge_mil_export.audit.unit_tests import WIDTH

    complete: dict[str, str] = {}
    slow = False
    if name in REFERENCES:
        if options:
            raise UsageError(f"{name} has no options.")
        make: Any = REFERENCES[name]
    else:

        def make() -> nn.Module:
            return fresh_head(name, options, feature_dim=WIDTH, outputs=CLASSES)[1]

        name, sample, complete = fresh_head(name, options, feature_dim=WIDTH, outputs=CLASSES)
        slow = sample.incremental == "whole-bag"
    sizes = SLOW_SIZES if slow else Sizes()
    count = seeds or SEEDS
    print(f"edge-mil-export: training {name} ...", file=sys.stderr)
    outcomes, seconds = audit(make, seeds=count, sizes=sizes)
    return Audited(name, complete, outcomes, seconds, (sizes.train, sizes.epochs, count))


def _document(rows: list[Audited], indent: int | None = None) -> str:
    source = (
        "edge-mil-export audit: bags of 45 x 16, heads of width 64, AdamW, trained from scratch"
    )
    return json.dumps({"source": source, "heads": [row.as_json() for row in rows]}, indent=indent)


def _page(table: str, rows: list[Audited], minutes: float) -> str:
    options = [
        f"{row.name}: {', '.join(f'{k}={v}' for k, v in row.options.items())}"
        for row in rows
        if row.options
    ]
    used = sum(row.cpu_s for row in rows) / 60
    shown = [f"Options: {'; '.join(options)}."] if options else []
    return "\n".join(
        [
            "AUROC on train -> on the poisoned test ± its standard deviation over the seeds.",
            "",
            table,
            "",
            *shown,
            f"{minutes:.1f} minutes, {used:.1f} CPU minutes.",
        ]
    )
