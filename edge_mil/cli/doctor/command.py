"""`edge-mil doctor`: say what this device can run, what is missing, and how to mend it."""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from edge_mil.cli.arguments import Subparsers, add_json, add_state
from edge_mil.cli.console import print_table
from edge_mil.errors import DependencyError

MARKS = {"ok": "ok", "info": "--", "warning": "!!", "missing": "NO"}
EXIT_MISSING = 1
"""Something that the profile needs is missing."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this device can run, what is missing, and the command that mends it",
        description="Examine this device: system, accelerator, packages, storage, clock, camera, "
        "and what edge-mil tune chose. Changes nothing. Exit code 1 when something that the "
        "profile needs is missing.",
    )
    parser.add_argument(
        "--profile",
        choices=("serve", "client", "export"),
        default="serve",
        help="what the device is for (default: serve)",
    )
    add_state(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine the device and print what was found."""
    from edge_mil.cli.doctor.findings import examine

    findings = examine(arguments.profile, arguments.state)
    missing = any(finding.state == "missing" for finding in findings)
    tuned = _tuned(arguments.state) if arguments.profile == "serve" else []
    if arguments.json:
        document = {
            "profile": arguments.profile,
            "ready": not missing,
            "findings": [finding.as_json() for finding in findings],
            "tuned": tuned,
        }
        print(json.dumps(document))
        return EXIT_MISSING if missing else 0
    for section, found in groupby(findings, key=lambda finding: finding.section):
        print(section)
        rows = []
        for finding in found:
            rows.append((f"  {MARKS[finding.state]}", finding.what))
            if finding.mend:
                rows.append(("", finding.mend))
        print_table(rows)
    if tuned:
        from edge_mil.cli.tune import print_tuning

        print("Measured by edge-mil tune")
        for document in tuned:
            print_tuning(document)
    elif arguments.profile == "serve":
        print("Measured by edge-mil tune")
        print_table([(f"  {MARKS['info']}", "nothing yet"), ("", "edge-mil tune BUNDLE")])
    print(
        "This device lacks what is marked NO."
        if missing
        else f"This device is ready: {arguments.profile}."
    )
    return EXIT_MISSING if missing else 0


def _tuned(state: Path | None) -> list[dict[str, Any]]:
    try:
        from edge_mil.pipeline.runners.tuned_choice import TunedStore
        from edge_mil.session import default_state_folder
    except (ModuleNotFoundError, DependencyError):
        return []  # the findings say which package is missing
    return TunedStore(state or default_state_folder()).all()
