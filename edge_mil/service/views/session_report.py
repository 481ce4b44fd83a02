"""The report of a session: the same records always give the same bytes."""

from __future__ import annotations

import math

from edge_mil.service.views.canonical import canonical_json
from edge_mil.session import FieldRecord, Session
from edge_mil.types import RESEARCH_USE_ONLY, Measure


def session_report(session: Session) -> bytes:
    """Return what the session found, as canonical JSON; run it on the session's worker."""
    standing, settings = session.standing(), session.settings
    bundle = session.model.bundle
    return canonical_json(
        {
            "notice": RESEARCH_USE_ONLY,
            "session": session.session_id,
            "created": session.created,
            "bundle": bundle.digest,
            "bundle_name": bundle.manifest.name,
            "bundle_version": bundle.manifest.version,
            "precision": session.precisions,
            "mpp": settings.mpp,
            "mpp_source": settings.mpp_source,
            "independent": settings.independent,
            "slide_label": settings.slide_label,
            "labels": dict(settings.labels),
            "score": standing.score.as_json() if standing.score else None,
            "instances": standing.instances,
            "coverage": standing.coverage,
            "revision": standing.revision,
            "fields": {verdict.name: count for verdict, count in standing.verdicts.items()},
            "records": [_record(record) for record in session.fields()],
        }
    )


def _record(record: FieldRecord) -> dict[str, object]:
    return {
        "sequence": record.sequence,
        "verdict": record.verdict.name,
        "x_um": record.x_um,
        "y_um": record.y_um,
        "width_um": record.width_um,
        "height_um": record.height_um,
        "place": record.location_id,
        "name": record.name,
        "capture_time_s": record.capture_time_s,
        "cells": record.cells,
        "cells_added": record.result.cells_added,
        "cells_improved": record.result.cells_improved,
        "cells_held": record.result.cells_held,
        "coverage": record.result.coverage,
        "removed": record.removed,
        "measures": [_measure(measure) for measure in record.result.measures],
    }


def _measure(measure: Measure) -> dict[str, object]:
    # A number that is reported only has no threshold, and JSON has no NaN.
    known = {"value": measure.value, "threshold": measure.threshold}
    return {
        "name": measure.name,
        "passed": measure.passed,
        **{key: number if math.isfinite(number) else None for key, number in known.items()},
    }
