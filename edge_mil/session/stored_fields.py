"""The names in a session's file, and the durable step of one field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from edge_mil.errors import BundleError
from edge_mil.pipeline import Model
from edge_mil.session.field.processor import ProcessedField
from edge_mil.session.instances.base import Placement
from edge_mil.session.provenance import EXTRACTOR, PRECISION
from edge_mil.session.settings import SessionSettings
from edge_mil.store import Change, FieldRow, GeometryRow, InstanceKind, InstanceRow, SessionReader
from edge_mil.types import Float32Array, Frame

DIGEST, SETTINGS, CREATED, STATE = "bundle_digest", "settings", "created", "state"
FRAME_SIZE, REVISION = "frame_size", "revision"
BUNDLE_NAME, SESSION_ID, CELL_UM = "bundle_name", "session_id", "cell_um"
"""Names in the file's meta table."""


def first_meta(
    model: Model, settings: SessionSettings, session_id: str, created: float
) -> dict[str, str]:
    """Return the meta table of a new session's file."""
    spec = model.input
    grid = spec is not None and spec.instances == "grid"
    # Width and height of a cell, µm, for programs that read the file without the bundle.
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

    The precision may be another one; the records say which runner extracted which fields.

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


def field_change(
    field: ProcessedField,
    answer: bytes,
    *,
    payload_crc: int,
    mpp: float,
    to_bytes: Callable[[Any], bytes],
    meta: Mapping[str, str],
    event: tuple[str, str] | None,
    geometry: GeometryRow | None = None,
) -> Change:
    """Return the durable step of one field: everything of it is stored, or nothing.

    Args:
        field: What it brings.
        answer: Its serialised answer.
        payload_crc: CRC-32 of what the client sent.
        mpp: Pixel size of the camera, µm/px.
        to_bytes: Serialises a state of the aggregator.
        meta: Changed names of the meta table.
        event: (kind, JSON) for the session's events; None for none.
        geometry: What it says about stage and slide; None for nothing.
    """
    plan, changes, placement = field.plan, field.plan.changes, field.placement
    if plan.rejected:
        placement = Placement(None, None)
    states = {s: None if v is None else to_bytes(v) for s, v in field.states.items()}
    assert field.batch is not None
    return Change(
        field=FieldRow(
            field.sequence,
            int(plan.verdict),
            payload_crc,
            _header(field.counted_at, mpp),
            answer,
            states.pop(field.sequence, None),
        ),
        instances=changes.glass
        + _with_arrays(changes.rows, field.features, field.batch.attention_logits),
        parts=changes.parts,
        thumbnail=field.thumbnail,
        kinds=dict.fromkeys(changes.displaced, InstanceKind.CANDIDATE),
        states=states,
        dropped=changes.dropped,
        finished_keys=changes.finished,
        meta={**meta, **placement.meta},
        event=event,
        key_frames=placement.key_frames,
        key_frame_positions=placement.key_positions,
        located=placement.located,
        moved=changes.moved,
        replaced_parts=changes.replaced_parts,
        geometry=geometry,
    )


def _header(frame: Frame, mpp: float) -> str:
    """Return what is stored of a field beside its answer, as JSON."""
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


def _with_arrays(
    rows: tuple[InstanceRow, ...], features: Float32Array, logits: Float32Array
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


class FieldHeaders:
    """Reads what is stored of fields beside their answers, with their newest positions.

    A field that was found by registration may have moved since, when a path closed a loop.
    """

    def __init__(self, store: SessionReader, mpp: float) -> None:
        self._newest, self._mpp = store.newest_positions(), mpp

    def read(self, sequence: int, header: str) -> dict[str, Any]:
        """Return position, size, location id (`place`), name and time of a field."""
        found: dict[str, Any] = json.loads(header)
        if sequence in self._newest:
            x, y = self._newest[sequence]
            found["x_um"] = round(x) * self._mpp + found["width_um"] / 2
            found["y_um"] = round(y) * self._mpp + found["height_um"] / 2
        return found
