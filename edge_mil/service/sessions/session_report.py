"""The report of a closed session: the same records always give the same bytes (RFC 8785)."""

from __future__ import annotations

import json
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
        "light": status.light,
        "revision": status.revision,
        "geometry": status.geometry.as_json(),
        "slide": status.slide.as_json(),
        "fields": {verdict.name: count for verdict, count in status.verdicts.items()},
    }
    records = [_record(record) for record in session.fields(attention=False)]
    try:
        return canonical(document, "records", records)
    except rfc8785.CanonicalizationError as error:
        raise StoreError(f"The report of the session cannot be written ({error}).") from error


def canonical(document: dict[str, Any], name: str, records: list[dict[str, Any]]) -> bytes:
    """Return a document with a long list in it as canonical JSON (RFC 8785).

    Args:
        document: Everything else.
        name: Of the list; names of the document come before and after it.
        records: The list: 10 000 of them take a second where RFC 8785's own encoder takes four.

    Raises:
        rfc8785.CanonicalizationError: It holds something that JSON cannot say.
    """
    before = rfc8785.dumps({key: value for key, value in document.items() if key < name})
    after = rfc8785.dumps({key: value for key, value in document.items() if key > name})
    listed = b",".join(map(_canonical, records))
    return before[:-1] + b',"' + name.encode() + b'":[' + listed + b"]," + after[1:]


def _canonical(record: dict[str, Any]) -> bytes:
    """Return a record as canonical JSON; by the fast encoder where its notation is the same."""
    try:
        plain = _plain(record)
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except (_OtherNotationError, UnicodeEncodeError):
        return rfc8785.dumps(record)


class _OtherNotationError(Exception):
    """A number that Python and RFC 8785 write differently."""


def _plain(value: Any) -> Any:
    """Return a value whose numbers Python writes as RFC 8785 does.

    Source:
        RFC 8785, section 3.2.2.3: a whole number has no ".0", an exponent begins at 1e21 and
        below 1e-6. Python's begins at 1e16 and below 1e-4.
    """
    if isinstance(value, float):
        if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER:
            return int(value)
        if value.is_integer() or not 1e-4 <= abs(value) < 1e16:
            raise _OtherNotationError
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _record(record: FieldRecord) -> dict[str, Any]:
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
