"""`edge-mil heads`: list the aggregators with their papers, classes, costs and audits."""

from __future__ import annotations

import argparse
import json
from typing import Any

from edge_mil.aggregators.catalogue import (
    CATALOGUE,
    FIELD,
    HELD,
    audit_results,
    costs,
    sources,
)
from edge_mil.cli.arguments import Subparsers, add_json
from edge_mil.cli.console import print_table, print_text

UNKNOWN = "-"
SHORT_VERDICT = {
    "respects": "respects",
    "in part": "in part",
    "can cheat": "can cheat",
    "learned nothing": "nothing",
    "undecided": "undecided",
}
HEADINGS = ("name", "class", "ms/field", "bytes/inst.", "audit 1, 2, 3", "paper")


def add_parser(subparsers: Subparsers) -> None:
    """Add `heads`."""
    parser = subparsers.add_parser(
        "heads",
        help="list the aggregators: paper, incremental class, costs, audit",
        description="List the aggregators with their classes. mergeable: a new field costs the "
        "same however large the bag is. banked: the device keeps a small row for each instance. "
        "whole-bag: the network runs over the whole bag again, in the background. The three tests "
        "of the audit ask whether the head can give a high score because something is absent.",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    rows = _rows()
    if arguments.json:
        print(json.dumps({"heads": rows, "sources": dict(sources())}))
        return 0
    print_table([_cells(row) for row in rows], HEADINGS, right={2, 3})
    print_text(f"\nms/field: one new field of {FIELD} instances where {HELD} are held.")
    print_text(
        "bytes/inst.: memory that the pooling keeps for each instance; features are on the disk."
    )
    for kind, text in sources().items():
        print_text(f"Source of {kind}: {text}.")
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    tests = row["audit"]
    audit = ", ".join(SHORT_VERDICT[test["verdict"]] for test in tests) if tests else UNKNOWN
    costs = _number(row["field_ms"], ".2f"), _number(row["bytes_per_instance"], ".0f")
    return row["name"], row["incremental"], *costs, audit, row["paper"]


def _rows() -> list[dict[str, Any]]:
    audits, measured = audit_results(), costs()
    rows = []
    for entry in CATALOGUE:
        cost = measured.get(entry.name, {})
        rows.append(
            {
                "name": entry.name,
                "paper": entry.paper,
                "incremental": entry.incremental,
                "field_ms": cost.get("field_ms", {}).get(str(HELD)),
                "bytes_per_instance": cost.get("bytes_per_instance"),
                "audit": audits.get(entry.name, {}).get("tests"),
            }
        )
    return rows


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)
