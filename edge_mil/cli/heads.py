"""`edge-mil heads`: the aggregators with their papers, classes, costs and audits."""

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

UNKNOWN = "-"
SHORT = {
    "respects": "respects",
    "in part": "in part",
    "can cheat": "can cheat",
    "learned nothing": "nothing",
}


def add_parser(subparsers: Any) -> None:
    """Add `heads`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "heads",
        help="list the aggregators: paper, incremental class, costs, audit",
        description="List the aggregators. mergeable: a field costs the same however large the bag "
        "is; banked: a small row is kept for each instance; whole-bag: the bag is run again in the "
        "background. The audit says for each of three tests whether the head can score high "
        "because something is absent.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    rows = _rows()
    if arguments.json:
        print(json.dumps({"heads": rows, "sources": dict(sources())}))
        return 0
    widths = {"name": max(len(str(row["name"])) for row in rows), "paper": 0}
    widths["paper"] = max(len(str(row["paper"])) for row in rows)
    head = f"{'name':{widths['name']}}  {'class':9}  {'ms/field':>8}  {'bytes/inst.':>11}  "
    print(f"{head}{'audit 1, 2, 3':32}  paper")
    for row in rows:
        tests = row["audit"]
        audit = ", ".join(SHORT[t["verdict"]] for t in tests) if tests else UNKNOWN
        print(
            f"{row['name']:{widths['name']}}  {row['incremental']:9}  "
            f"{_number(row['field_ms'], '.2f'):>8}  {_number(row['bytes_per_instance'], '.0f'):>11}"
            f"  {audit:32}  {row['paper']}"
        )
    print(f"\nms/field: one new field of {FIELD} instances with {HELD} held.")
    print("bytes/inst.: memory that the pooling keeps for each instance; features are on the disk.")
    for kind, text in sources().items():
        print(f"Source of {kind}: {text}.")
    return 0


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
