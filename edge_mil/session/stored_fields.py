"""What a session's file says of the session, and how its rows are written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from edge_mil.errors import BundleError
from edge_mil.pipeline import Model
from edge_mil.session.provenance import EXTRACTOR, PRECISION
from edge_mil.session.settings import SessionSettings
from edge_mil.store import InstanceRow, SessionReader
from edge_mil.types import Frame

DIGEST, SETTINGS, CREATED, STATE = "bundle_digest", "settings", "created", "state"
FRAME_SIZE, REVISION = "frame_size", "revision"
BUNDLE_NAME, SESSION_ID, CELL_UM = "bundle_name", "session_id", "cell_um"
"""Names in the file's meta table."""


def opening(
    model: Model, settings: SessionSettings, session_id: str, created: float
) -> dict[str, str]:
    """Return what a new session's file begins with."""
    spec = model.input
    grid = spec is not None and spec.instances == "grid"
    # Width and height of a cell: whoever reads the file without the bundle wants micrometres.
    cell = (
        [spec.tile_width_px * spec.mpp, spec.tile_height_px * spec.mpp] if spec and grid else None
    )
    return {
        CELL_UM: json.dumps(cell),
        DIGEST: model.bundle.digest,
        BUNDLE_NAME: model.bundle.manifest.name,
        SESSION_ID: session_id,
        SETTINGS: settings.to_json(),
        CREATED: repr(created),
        STATE: "open",
        PRECISION: model.precision,
        EXTRACTOR: "" if model.extractor is None else model.extractor.current.name,
    }


def check_same(meta: Mapping[str, str], model: Model) -> None:
    """Check that a stored session goes on with the bundle that it began with.

    The precision may be another one: the record says which extractor made which fields.

    Raises:
        BundleError: Another bundle.
    """
    if meta.get(DIGEST) != model.bundle.digest:
        raise BundleError(
            f"The session was opened with bundle {meta.get('bundle_name')} "
            f"{meta.get(DIGEST, '')[:19]}, not with {model.bundle.digest[:19]}; serve "
            "that bundle to go on with it.",
            session=meta.get(DIGEST, ""),
            bundle=model.bundle.digest,
        )


def field_header(frame: Frame, mpp: float) -> str:
    """Return what is kept of a field beside its answer, as JSON."""
    return json.dumps(
        {
            "x_um": frame.x_um,
            "y_um": frame.y_um,
            "width_um": frame.width_px * mpp,
            "height_um": frame.height_px * mpp,
            "place": frame.location_id,
            "name": frame.name,
            "capture_time_s": frame.capture_time_s,
        }
    )


def with_arrays(
    rows: tuple[InstanceRow, ...], features: Any, logits: Any
) -> tuple[InstanceRow, ...]:
    """Return the rows with their features and attention logits, float32, little-endian."""
    return tuple(
        dataclasses.replace(
            row,
            features=feature.astype("<f4").tobytes(),
            attention_logits=logit.astype("<f4").tobytes(),
        )
        for row, feature, logit in zip(rows, features, logits, strict=True)
    )


class Headers:
    """What is kept of fields beside their answers, each where it lies now.

    A field that was found by its picture may have moved since: when a path closed a loop.
    """

    def __init__(self, store: SessionReader, mpp: float) -> None:
        self._newest, self._mpp = store.newest_positions(), mpp

    def read(self, sequence: int, header: str) -> dict[str, Any]:
        """Return what `field_header` wrote, with the newest position."""
        found: dict[str, Any] = json.loads(header)
        if sequence in self._newest:
            x, y = self._newest[sequence]
            found["x_um"] = round(x) * self._mpp + found["width_um"] / 2
            found["y_um"] = round(y) * self._mpp + found["height_um"] / 2
        return found
