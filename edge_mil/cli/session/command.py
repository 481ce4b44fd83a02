"""`edge-mil session list|show|report|export|check|release`: the sessions that a service keeps."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge_mil.bundle import open_bundle
from edge_mil.cli.arguments import Subparsers, add_json, add_state, state_folder
from edge_mil.cli.console import print_table, print_text
from edge_mil.cli.session import check as session_check
from edge_mil.cli.session.listing import (
    list_row,
    score_rows,
    session_document,
    shown_time,
    stored_status,
)
from edge_mil.client import Client
from edge_mil.client.client import DEFAULT_ADDRESS
from edge_mil.errors import UsageError
from edge_mil.session import DamagedSession, SessionFolder
from edge_mil.session.report.content import session_report
from edge_mil.session.report.files import export_session
from edge_mil.session.report.page import write_report
from edge_mil.types import RESEARCH_USE_ONLY


def add_parser(subparsers: Subparsers) -> None:
    """Add `session` and its verbs."""
    parser = subparsers.add_parser(
        "session",
        help="list, show, report on, export or check the sessions of a service",
        description="List, show, report on, export or check the sessions that a service keeps; "
        "also while it is running. Only report needs the bundle, and only release the service.",
    )
    names = "list|show|report|export|check|release"
    verbs = parser.add_subparsers(dest="verb", metavar=names, required=True)
    listing = verbs.add_parser(
        "list", help="list the sessions", description="List the sessions, oldest first."
    )
    show = verbs.add_parser(
        "show",
        help="show the fields, the coverage and the score of a session",
        description="Show the fields, the coverage and the score of a session.",
    )
    report = verbs.add_parser(
        "report",
        help="write the report of a session as one HTML page",
        description="Write the report of a session as one HTML page: the slide as far as it was "
        "seen with its heat map, the score over the fields, the verdicts and the fields that moved "
        "the score most.",
    )
    export = verbs.add_parser(
        "export",
        help="write the records of a session as files",
        description="Write the records of a session as files: fields and cells as CSV, features as "
        ".npz, thumbnails as JPEG. edge-mil score BUNDLE features.npz gives the session's score.",
    )
    check = verbs.add_parser(
        "check",
        help="compare every stored row with its digest",
        description="Compare every row of the stored sessions with its digest, and name what is "
        "damaged. The exit code is 1 where a session is damaged and was not recovered.",
    )
    session_check.add_arguments(check)
    release = verbs.add_parser(
        "release",
        help="let a session go on that a check holds",
        description="Let a session go on whose fields are refused because a check contradicts what "
        "it takes for granted. edge-mil session show says which.",
    )
    release.add_argument("session", metavar="ID", help="an id from edge-mil session list")
    how = release.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--same-slide",
        dest="how",
        action="store_const",
        const="same-slide",
        help="the slide was cleaned, or put back where it was",
    )
    how.add_argument(
        "--insist",
        dest="how",
        action="store_const",
        const="insist",
        help="count fields in spite of the contradiction; the score goes on to say it",
    )
    release.add_argument("--reason", default="", help="for the records of the session")
    release.add_argument(
        "--server", default=DEFAULT_ADDRESS, metavar="ADDR", help="HOST:PORT or unix:PATH"
    )
    add_json(release)
    release.set_defaults(run=run_release)
    for verb, run in (
        (listing, run_list),
        (show, run_show),
        (report, run_report),
        (export, run_export),
        (check, run_check),
    ):
        if verb not in (listing, check):
            verb.add_argument("session", metavar="ID", help="an id from edge-mil session list")
        add_state(verb)
        add_json(verb)
        verb.set_defaults(run=run)
    report.add_argument(
        "--bundle",
        metavar="BUNDLE",
        required=True,
        help="the bundle that the session was read with",
    )
    report.add_argument(
        "--out", metavar="FILE", type=Path, help="the page to write (default: edge-mil-ID.html)"
    )
    export.add_argument(
        "--out", metavar="DIR", type=Path, help="the folder to write (default: edge-mil-ID)"
    )


def run_release(arguments: argparse.Namespace) -> int:
    """Let a held session go on.

    Raises:
        EdgeMilError: The service cannot be reached, or nothing holds the session.
    """
    with Client(arguments.server) as client:
        info = client.resume(arguments.session).release(arguments.how, arguments.reason)
    if arguments.json:
        checks = {"geometry": info.geometry.as_json(), "slide": info.slide.as_json()}
        print(json.dumps({"session": info.session_id, **checks}))
        return 0
    print_text(f"Session {info.session_id} goes on.")
    for name, check in (("geometry", info.geometry), ("slide", info.slide)):
        print_text(f"{name}: {check.state.value}. {check.sentence}")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line for each session."""
    folder = _session_folder(arguments)
    found = list(reversed(folder.page()))
    if arguments.json:
        print(json.dumps({"sessions": [session_document(summary) for summary in found]}))
        return 0
    if not found:
        print(f"There is no session in {state_folder(arguments)}.")
    print_table([list_row(summary) for summary in found])
    for summary in found:
        if isinstance(summary, DamagedSession):
            print_text(summary.problem)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print the fields, the coverage and the score of a session."""
    folder = _session_folder(arguments)
    summary = folder.summary(arguments.session)
    status = stored_status(folder.reader(arguments.session), summary)
    if arguments.json:
        print(json.dumps({**session_document(summary), **status}))
        return 0
    counts = ", ".join(f"{n} {name}" for name, n in status["fields"].items()) or "none"
    if status["removed"]:
        counts += f" ({status['removed']} of them removed by hand)"
    if status["lost_fields"]:
        lost = ", ".join(map(str, status["lost_fields"]))
        counts += f"; lost when the file was damaged: {lost}"
    rows = [
        ("session", f"{summary.session_id} ({'closed' if summary.closed else 'open'})"),
        ("begun", shown_time(summary.created)),
        ("bundle", f"{summary.bundle_name} {summary.bundle_digest}"),
        (
            "camera",
            f"{summary.settings.mpp:g} µm/px, {summary.settings.mpp_source}; "
            f"{summary.settings.camera}",
        ),
        ("fields", counts),
        ("coverage", f"{status['coverage']:.0%} of the tissue known so far"),
        *(
            (name, f"{status[name]['state']}: {status[name]['sentence']}")
            for name in ("geometry", "slide")
        ),
    ]
    print_table([*rows, *score_rows(status)])
    if not status["current"]:
        print_text("Fields were removed since; edge-mil session report computes the score again.")
    print(RESEARCH_USE_ONLY)
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """Write the page and print where it is.

    Raises:
        StoreError: The page cannot be written.
    """
    bundle = open_bundle(arguments.bundle)
    content = session_report(_session_folder(arguments), arguments.session, bundle)
    out = arguments.out or Path(f"edge-mil-{arguments.session}.html")
    write_report(content, out)
    if arguments.json:
        score = content.score.as_json() if content.score else None
        written = {"session": arguments.session, "file": str(out), "score": score}
        print(json.dumps({**written, "coverage": content.coverage, "bundle": bundle.digest}))
        return 0
    print(out)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Write the files and print where they are."""
    folder = _session_folder(arguments)
    summary = folder.summary(arguments.session)
    out = arguments.out or Path(f"edge-mil-{summary.session_id}")
    written = export_session(folder.reader(arguments.session), summary, out)
    if arguments.json:
        print(json.dumps({"session": summary.session_id, "files": [str(path) for path in written]}))
        return 0
    for path in written:
        print(path)
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Check the sessions; `session_check` says what it prints and returns."""
    return session_check.check_sessions(_session_folder(arguments), arguments)


def _session_folder(arguments: argparse.Namespace) -> SessionFolder:
    state = state_folder(arguments)
    if arguments.state is not None and not state.is_dir():
        raise UsageError(f"There is no state directory {state}; check --state.")
    return SessionFolder(state)
