"""The report of a closed session: the same records always give the same bytes (RFC 8785)."""

from __future__ import annotations

import math
from typing import Any

import rfc8785

from edge_mil.errors import StoreError
from edge_mil.session import FieldRecord, Session
from edge_mil.types import RESEARCH_USE_ONLY, Measure

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer of RFC 8785: beyond it a reader that has doubles only would take another."""


def session_report(session: Session) -> bytes:
    """Return what the session found, as canonical JSON; run it on the session's worker.

    Numbers that JSON does not have (NaN, infinity) are null; a sequence number above
    MAX_SAFE_INTEGER is text.

    Raises:
        StoreError: The records hold something that JSON cannot say.
    """
    status, settings = session.status(), session.settings
    bundle = session.model.bundle
    document: dict[str, Any] = {
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
        "score": status.score.as_json() if status.score else None,
        "instances": status.instances,
        "coverage": status.coverage,
        "revision": status.revision,
        "geometry": status.geometry.as_json(),
        "slide": status.slide.as_json(),
        "fields": {verdict.name: count for verdict, count in status.verdicts.items()},
        "records": [_record(record) for record in session.fields()],
    }
    try:
        return rfc8785.dumps(document)
    except rfc8785.CanonicalizationError as error:
        raise StoreError(f"The report of the session cannot be written ({error}).") from error


def _record(record: FieldRecord) -> dict[str, object]:
    sequence = record.sequence
    return {
        "sequence": sequence if sequence <= MAX_SAFE_INTEGER else str(sequence),
        "verdict": record.verdict.name,
        "x_um": record.x_um,
        "y_um": record.y_um,
        "width_um": record.width_um,
        "height_um": record.height_um,
        "place": record.location_id,  # the report keeps this name
        "name": record.name,
        "capture_time_s": record.capture_time_s,
        "cells": record.cells,
        "cells_added": record.result.cells_added,
        "cells_improved": record.result.cells_improved,
        "cells_held": record.result.cells_held,
        "coverage": record.result.coverage,
        "removed": record.removed,
        "suspect": record.suspect,
        "explanation": record.result.explanation,
        "measures": [_measure(measure) for measure in record.result.measures],
    }


def _measure(measure: Measure) -> dict[str, object]:
    # A number that is reported only has no threshold.
    numbers = {"value": measure.value, "threshold": measure.threshold}
    return {
        "name": measure.name,
        "passed": measure.passed,
        **{key: x if math.isfinite(x) else None for key, x in numbers.items()},
    }
