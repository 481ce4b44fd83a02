"""`edge-mil doctor`: what this device can run, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_mil.errors import DependencyError

MARKS = {"ok": "ok", "info": "--", "warning": "!!", "missing": "NO"}
EXIT_MISSING = 1
"""Something that the profile needs is missing."""


def add_parser(subparsers: Any) -> None:
    """Add `doctor` and its arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="what this device can run, what is missing, and the command that mends it",
        description="Look at this device: system, accelerator, packages, storage, clock, camera, "
        "and what edge-mil tune kept. Changes nothing. Exit code 1 when something that the "
        "profile needs is missing.",
    )
    add = parser.add_argument
    add("--profile", choices=("serve", "client", "export"), default="serve", help="what it is for")
    add("--state", type=Path, metavar="DIR", help="where the service keeps its state")
    add("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, and print what was found."""
    from edge_mil.cli.doctor.findings import look

    findings = look(arguments.profile, arguments.state)
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
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            print(section)
        print(f"  {MARKS[finding.state]}  {finding.what}")
        if finding.mend:
            print(f"      {finding.mend}")
    if tuned:
        from edge_mil.cli.tune import print_tuning

        print("Measured by edge-mil tune")
        for document in tuned:
            print_tuning(document)
    elif arguments.profile == "serve":
        print("Measured by edge-mil tune\n  --  nothing yet\n      edge-mil tune BUNDLE")
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
