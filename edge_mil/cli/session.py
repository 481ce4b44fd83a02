"""`edge-mil session list|show|report|export`: what a service keeps of the slides that were read."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_mil.bundle import open_bundle
from edge_mil.errors import StoreError, UsageError
from edge_mil.pipeline import load_model
from edge_mil.session import SessionFolder, SessionSummary, default_state_folder
from edge_mil.session.answers import read_answer
from edge_mil.session.report.content import gather_report
from edge_mil.session.report.files import export_session
from edge_mil.session.report.page import render_report
from edge_mil.session.stored_fields import REVISION
from edge_mil.store import SessionReader
from edge_mil.types import RESEARCH_USE_ONLY, FieldResult, Verdict


def add_parser(subparsers: Any) -> None:
    """Add `session` and its four verbs."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "session",
        help="list, show, report on or export the sessions of a service",
        description="What a service keeps of the slides that were read. list, show and export "
        "work beside a running service and need no bundle.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="list|show|report|export", required=True)

    def verb(name: str, line: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=line, description=line)
        if name != "list":
            made.add_argument("session", metavar="ID", help="as `edge-mil session list` prints it")
        made.add_argument(
            "--state",
            metavar="DIR",
            type=Path,
            default=None,
            help="state directory of the service (default: $XDG_STATE_HOME/edge-mil, which is "
            "~/.local/state/edge-mil where the variable is not set)",
        )
        made.add_argument("--json", action="store_true", help="print one JSON document")
        return made

    verb("list", "List the sessions, oldest first.").set_defaults(run=run_list)
    verb("show", "Show one session: its fields, its coverage, its score.").set_defaults(
        run=run_show
    )
    report = verb(
        "report",
        "Write the session's report: one HTML page with the slide as far as it was seen, its heat "
        "map, the score over time and the top fields.",
    )
    report.add_argument(
        "--bundle",
        metavar="BUNDLE",
        required=True,
        help="the bundle that the session was read with",
    )
    report.add_argument("--out", metavar="FILE", type=Path, help="default: edge-mil-ID.html")
    report.set_defaults(run=run_report)
    export = verb(
        "export",
        "Write fields and cells as CSV, features as .npz, thumbnails as JPEG into a folder. "
        "edge-mil score BUNDLE features.npz gives the session's score again.",
    )
    export.add_argument("--out", metavar="DIR", type=Path, help="default: edge-mil-ID")
    export.set_defaults(run=run_export)


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line for each session."""
    folder = _folder(arguments)
    found = [folder.summary(session_id) for session_id in folder.ids()]
    if arguments.json:
        print(json.dumps({"sessions": [_about(summary) for summary in found]}))
        return 0
    if not found:
        print(f"There is no session in {_state(arguments)}.")
    for summary in found:
        label = f"  {summary.settings.slide_label}" if summary.settings.slide_label else ""
        print(
            f"{summary.session_id}  {_time(summary.created)}  "
            f"{'closed' if summary.closed else 'open  '}  {summary.bundle_name}{label}"
        )
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print a session's fields, coverage and score."""
    folder = _folder(arguments)
    summary = folder.summary(arguments.session)
    standing = _standing(folder.reader(arguments.session))
    if arguments.json:
        print(json.dumps({**_about(summary), **standing}))
        return 0
    print(f"session   {summary.session_id} ({'closed' if summary.closed else 'open'})")
    print(f"begun     {_time(summary.created)}")
    print(f"bundle    {summary.bundle_name} {summary.bundle_digest}")
    print(f"camera    {summary.settings.mpp:g} um/px, {summary.settings.mpp_source}")
    counts = ", ".join(f"{n} {name}" for name, n in standing["fields"].items())
    print(f"fields    {counts or 'none'}" + _removed(standing["removed"]))
    print(f"coverage  {standing['coverage']:.0%} of the tissue known so far")
    score = standing["score"]
    if score is None:
        print("score     none yet")
    elif "pooled" in score:
        print(f"score     {len(score['pooled'])} pooled numbers; no classifier follows")
    elif "value" in score:
        what = "risk" if "hazards" in score else score["classes"][0]
        print(f"score     of {standing['instances']} instances, by field {standing['as_of']}:")
        print(f"          {what} {score['value']:.4f}")
    else:
        values = score["probabilities"] or score["logits"]
        what = "probability" if score["probabilities"] else "logit"
        print(f"score     of {standing['instances']} instances, by field {standing['as_of']}:")
        for name, value in zip(score["classes"], values, strict=False):
            print(f"          {what} of {name}: {value:.4f}")
    if not standing["current"]:
        print("          Fields were removed since; edge-mil session report folds them again.")
    print(RESEARCH_USE_ONLY)
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """Write the session's page, and say where.

    Raises:
        StoreError: The page cannot be written.
    """
    folder = _folder(arguments)
    summary = folder.summary(arguments.session)
    reader = folder.reader(arguments.session)
    bundle = open_bundle(arguments.bundle)
    model = load_model(bundle, extractor=False)
    try:
        content = gather_report(reader, summary, model)
    finally:
        model.close()
    out = arguments.out or Path(f"edge-mil-{summary.session_id}.html")
    try:
        out.write_text(render_report(content), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The report cannot be written to {out} ({error.strerror}); name another --out."
        ) from error
    if arguments.json:
        score = content.score.as_json() if content.score else None
        written = {"session": summary.session_id, "file": str(out), "score": score}
        print(json.dumps({**written, "coverage": content.coverage, "bundle": bundle.digest}))
        return 0
    print(out)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Write the session's files, and say where."""
    folder = _folder(arguments)
    summary = folder.summary(arguments.session)
    out = arguments.out or Path(f"edge-mil-{summary.session_id}")
    written = export_session(folder.reader(arguments.session), summary, out)
    if arguments.json:
        print(json.dumps({"session": summary.session_id, "files": [str(path) for path in written]}))
        return 0
    for path in written:
        print(path)
    return 0


def _folder(arguments: argparse.Namespace) -> SessionFolder:
    state = _state(arguments)
    if arguments.state is not None and not state.is_dir():
        raise UsageError(f"There is no state directory {state}; check --state.")
    return SessionFolder(state)


def _state(arguments: argparse.Namespace) -> Path:
    return arguments.state or default_state_folder()


def _about(summary: SessionSummary) -> dict[str, Any]:
    return {
        "session": summary.session_id,
        "bundle": summary.bundle_digest,
        "bundle_name": summary.bundle_name,
        "state": "closed" if summary.closed else "open",
        "created": summary.created,
        "mpp": summary.settings.mpp,
        "mpp_source": summary.settings.mpp_source,
        "calibration": summary.settings.calibration_id or None,
        "calibration_digest": summary.settings.calibration_digest or None,
        "slide_label": summary.settings.slide_label,
    }


def _standing(reader: SessionReader) -> dict[str, Any]:
    """Return what the stored answers say: the last change of the bag carries its score."""
    rows = reader.fields()
    results = [read_answer(row.answer) for row in rows]
    counts = Counter(result.verdict for result in results)
    last: FieldResult | None = max(results, key=lambda r: (r.revision, r.sequence), default=None)
    return {
        "fields": {verdict.name: counts[verdict] for verdict in Verdict if counts[verdict]},
        "removed": sum(row.removed for row in rows),
        "coverage": last.coverage if last else 0.0,
        "score": last.score.as_json() if last and last.score else None,
        "instances": last.score.instances if last and last.score else 0,
        "as_of": last.sequence if last else 0,
        # A removal changes the bag and answers no field, so no stored answer has its score.
        "current": int(reader.meta().get(REVISION, 0)) == (last.revision if last else 0),
    }


def _removed(count: int) -> str:
    return f" ({count} of them removed by hand)" if count else ""


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
