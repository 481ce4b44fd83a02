"""`edge-mil-export audit`: can a head score high because something is absent?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Train, and print the table.

    Raises:
        UsageError: The head or an option is unknown.
    """
    from edge_mil.errors import NotThereYetError, UsageError
    from edge_mil_export.aggregator import parse_options
    from edge_mil_export.audit.table import markdown

    options = parse_options(arguments.arch_option)
    if arguments.seeds is not None and arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds} must be 1 or more.")
    if arguments.head == "all" and options:
        raise UsageError("--arch-option belongs to one architecture; name it instead of all.")
    rows: list[Audited] = []
    for name, given in _chosen(arguments.head, options):
        try:
            rows.append(_audit(name, given, arguments.seeds))
        except NotThereYetError:
            if arguments.head != "all":
                raise
            print(f"edge-mil-export: {name} has no fresh weights, left out", file=sys.stderr)
        if arguments.write is not None:
            arguments.write.write_text(_document(rows, indent=1) + "\n", encoding="utf-8")
    print(_document(rows) if arguments.json else _page(markdown(rows), rows))
    return 0


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
    from edge_mil_export.architectures.registry import fresh_head
    from edge_mil_export.audit.references import REFERENCES
    from edge_mil_export.audit.table import Audited
    from edge_mil_export.audit.training import CLASSES, SEEDS, SLOW_SEEDS, SLOW_SIZES, Sizes, audit
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
    count = seeds or (SLOW_SEEDS if slow else SEEDS)
    print(f"edge-mil-export: training {name} ...", file=sys.stderr)
    outcomes, seconds = audit(make, seeds=count, sizes=sizes)
    return Audited(name, complete, outcomes, seconds, (sizes.train, sizes.epochs, count))


def _document(rows: list[Audited], indent: int | None = None) -> str:
    source = (
        "edge-mil-export audit: bags of 45 x 16, heads of width 64, AdamW, trained from scratch"
    )
    return json.dumps({"source": source, "heads": [row.as_json() for row in rows]}, indent=indent)


def _page(table: str, rows: list[Audited]) -> str:
    options = [
        f"{row.name}: {', '.join(f'{k}={v}' for k, v in row.options.items())}"
        for row in rows
        if row.options
    ]
    seconds = sum(row.cpu_s for row in rows)
    shown = [f"Options: {'; '.join(options)}."] if options else []
    return "\n".join(
        [
            "AUROC on train -> on the poisoned test, mean over the seeds.",
            "",
            table,
            "",
            *shown,
            f"{seconds:.0f} CPU seconds.",
        ]
    )
