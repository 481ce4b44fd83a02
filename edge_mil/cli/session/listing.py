"""What `edge-mil session` shows of a stored session."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from edge_mil.session import DamagedSession, SessionSummary
from edge_mil.session.answers import read_answer
from edge_mil.session.geometry.stored import stored_checks
from edge_mil.session.stored_fields import REVISION
from edge_mil.store import RECOVERED, SessionReader
from edge_mil.types import FieldResult, Verdict


def list_row(summary: SessionSummary | DamagedSession) -> tuple[str, ...]:
    """Return the row of `session list`: id, time, state, bundle and label of the slide."""
    if isinstance(summary, DamagedSession):
        return summary.session_id, "", "damaged", "", ""
    return (
        summary.session_id,
        shown_time(summary.created),
        "closed" if summary.closed else "open",
        summary.bundle_name,
        summary.settings.slide_label,
    )


def session_document(summary: SessionSummary | DamagedSession) -> dict[str, Any]:
    """Return what `--json` says of a session as it was opened."""
    if isinstance(summary, DamagedSession):
        return {
            "session": summary.session_id,
            "state": "damaged",
            "problem": summary.problem,
        }
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
        "camera": summary.settings.camera,
        "camera_bound": summary.settings.camera_bound,
    }


def stored_status(reader: SessionReader, summary: SessionSummary) -> dict[str, Any]:
    """Return the counts of the stored answers, and the score of the last change of the bag."""
    rows, checks = reader.fields(), stored_checks(reader, summary.settings)
    results = [read_answer(row.answer) for row in rows]
    counts = Counter(result.verdict for result in results)
    last: FieldResult | None = max(results, key=lambda r: (r.revision, r.sequence), default=None)
    meta = reader.meta()
    return {
        "lost_fields": json.loads(meta.get(RECOVERED, "{}")).get("lost_fields", []),
        "fields": {verdict.name: counts[verdict] for verdict in Verdict if counts[verdict]},
        "removed": sum(row.removed for row in rows),
        "coverage": last.coverage if last else 0.0,
        "score": last.score.as_json() if last and last.score else None,
        "instances": last.score.instances if last and last.score else 0,
        "as_of": last.sequence if last else 0,
        "geometry": checks.geometry.as_json(),
        "slide": checks.slide.as_json(),
        "suspects": list(checks.suspects),
        # A removal changes the bag and answers no field, so no stored answer has its score.
        "current": int(meta.get(REVISION, 0)) == (last.revision if last else 0),
    }


def score_rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of `session show` that hold the score."""
    score = status["score"]
    if score is None:
        yield "score", "none yet"
    elif "pooled" in score:
        yield "score", f"{len(score['pooled'])} pooled numbers; no classifier follows"
    else:
        yield "score", f"of {status['instances']} instances, by field {status['as_of']}"
        if "value" in score:
            yield "risk" if "hazards" in score else score["classes"][0], f"{score['value']:.4f}"
            intervals = (score.get(key, ()) for key in ("hazards", "survival"))
            for name, hazard, survival in zip(score["classes"], *intervals, strict=False):
                yield f"hazard and survival of {name}", f"{hazard:.4f}, {survival:.4f}"
            return
        what = "probability" if score["probabilities"] else "logit"
        values = score["probabilities"] or score["logits"]
        for name, value in zip(score["classes"], values, strict=False):
            yield f"{what} of {name}", f"{value:.4f}"


def shown_time(seconds: float) -> str:
    """Return seconds since the epoch as a date and time, UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
