"""`edge-mil session check`: compare every stored row with its digest, and keep what is whole."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_mil.cli.console import print_text
from edge_mil.errors import SessionNotFoundError, StoreError
from edge_mil.session import SessionFolder
from edge_mil.store import Examination, Recovery, examine, recover
from edge_mil.store.faults import row_name

WHOLE, DAMAGED = 0, 1
"""Exit codes: 1 says that a session is damaged, and was not recovered."""
SHOWN_ROWS = 20
"""Damaged rows that are printed; --json has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `session check` takes besides --state and --json."""
    parser.add_argument(
        "session", metavar="ID", nargs="*", help="ids from edge-mil session list (default: all)"
    )
    parser.add_argument(
        "--recover",
        action="store_true",
        help="write a damaged session anew from the rows that are whole; the damaged file is kept "
        "beside it. Fields whose part of the score is lost are flagged as removed",
    )


def check_sessions(folder: SessionFolder, arguments: argparse.Namespace) -> int:
    """Check sessions, recover them where that is asked, and say what was found.

    Returns:
        The exit code.

    Raises:
        SessionNotFoundError: There is no session of an id that is given.
        StoreError: A session to recover is in use, or cannot be written.
    """
    found = [
        _check(folder, i, recovering=arguments.recover) for i in arguments.session or folder.ids()
    ]
    if arguments.json:
        print(json.dumps({"sessions": found}))
    else:
        for entry in found:
            _print(entry)
        if not found:
            print("There is no session to check.")
    return DAMAGED if any(entry["state"] == "damaged" for entry in found) else WHOLE


def _check(folder: SessionFolder, session_id: str, *, recovering: bool) -> dict[str, Any]:
    path = folder.file(session_id)
    try:
        folder.reader(session_id)  # a file of an earlier release gets its digests first
        examination = examine(path)
    except SessionNotFoundError:
        raise
    except StoreError as error:
        return {"session": session_id, "state": "damaged", "problem": str(error)}
    if examination.is_whole:
        if recovering:
            folder.recovered(session_id)
        return {"session": session_id, "state": "whole", "rows": dict(examination.whole)}
    entry = {"session": session_id, **_damage(examination)}
    if recovering:
        entry.update(_recovery(recover(path)))
        folder.recovered(session_id)
    return entry


def _damage(examination: Examination) -> dict[str, Any]:
    return {
        "state": "damaged",
        "rows": dict(examination.whole),
        "damaged": [row_name(*row) for row in examination.damaged],
        "structure": examination.structure,
    }


def _recovery(recovery: Recovery) -> dict[str, Any]:
    return {
        "state": "recovered",
        "damaged": [row_name(*row) for row in recovery.lost_rows],
        "lost_fields": list(recovery.lost_fields),
        "kept": str(recovery.kept),
    }


def _print(entry: dict[str, Any]) -> None:
    print(f"{entry['session']}  {entry['state']}")
    if "problem" in entry:
        print_text(f"  {entry['problem']}")
    if entry.get("structure"):
        print_text(f"  structure of the file: {entry['structure']}")
    lost = entry.get("damaged", [])
    for name in lost[:SHOWN_ROWS]:
        print_text(f"  damaged: {name}")
    if len(lost) > SHOWN_ROWS:
        print_text(f"  and {len(lost) - SHOWN_ROWS} more rows; --json names all")
    if entry["state"] == "recovered":
        fields = ", ".join(map(str, entry["lost_fields"])) or "none"
        print_text(f"  fields that no longer count: {fields}")
        print_text(f"  the damaged file: {Path(entry['kept'])}")
