"""Begin a session, or restore one from its file."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edge_mil.calibration import Calibration, stain_transform
from edge_mil.pipeline import Model
from edge_mil.session.answer_log import AnswerLog
from edge_mil.session.bag import Bag
from edge_mil.session.field.light_history import LIGHT, LightHistory
from edge_mil.session.field.processor import FieldProcessor
from edge_mil.session.field.setup import (
    attachments,
    camera_correction,
    checks_light,
    complete_settings,
    minimal_settings,
    open_gate,
    stored_calibration,
)
from edge_mil.session.instances.base import InstanceMap, Localizer
from edge_mil.session.instances.factory import open_instances
from edge_mil.session.provenance import RunnerHistory
from edge_mil.session.settings import SessionSettings
from edge_mil.session.stored_fields import (
    CREATED,
    EXPIRED,
    FRAME_SIZE,
    REVISION,
    SESSION_ID,
    SETTINGS,
    STATE,
    check_same,
    first_meta,
)
from edge_mil.store import FIRST_META, Change, InstanceRow, SessionFile
from edge_mil.store.digest import with_own_digest
from edge_mil.types import Verdict


@dataclass(slots=True, eq=False)
class SessionState:
    """What a session keeps in memory; changed by its worker only.

    Attributes:
        session_id: Name of the session.
        settings: What it was opened with.
        created: Seconds since the epoch.
        localizer: Finds the position of each frame.
        instances: Knows which instances are held.
        processor: The steps of a field.
        bag: The folded states.
        answers: The answers by sequence number.
        runners: Which runner extracted which fields.
        light: What the fields said of the light.
        frame_size: (height, width) of the fields, px; None before the first.
        removed: Fields that were removed by hand.
        verdicts: How many fields got each verdict.
        revision: Counts the changes of the bag.
        closed: Whether the session takes no more fields.
        expired: Whether it was closed because none came for its idle timeout.
    """

    session_id: str
    settings: SessionSettings
    created: float
    localizer: Localizer[Any]
    instances: InstanceMap[Any]
    processor: FieldProcessor
    bag: Bag
    answers: AnswerLog
    runners: RunnerHistory
    light: LightHistory
    frame_size: tuple[int, int] | None
    removed: set[int]
    verdicts: Counter[Verdict]
    revision: int
    closed: bool
    expired: bool


def open_state(
    model: Model,
    store: SessionFile,
    settings: SessionSettings | None,
    mpp: float | None,
    calibration: Calibration | None,
    session_id: str,
) -> SessionState:
    """Begin a session in an empty file, or restore the one that the file holds.

    Args:
        model: The networks and the pooling.
        store: The session's file.
        settings: For a new session; a stored one has its own.
        mpp: Pixel size in place of `settings`, µm/px.
        calibration: For a new session; a stored one has its own.
        session_id: Name of a new session.

    Raises:
        EdgeMilError: As `Session` raises.
    """
    meta = store.meta()
    stored = SETTINGS in meta
    if stored:
        settings = SessionSettings.from_json(meta[SETTINGS])
        calibration = stored_calibration(store, settings)
        check_same(meta, model)
    else:
        asked = settings or minimal_settings(mpp, calibration)
        settings = complete_settings(asked, model, calibration)
    session_id = session_id or meta.get(SESSION_ID, "")
    created = float(meta.get(CREATED, time.time()))
    frame_size = stored_frame_size(meta)
    localizer, instances = open_instances(model, settings, frame_size)
    if not stored:
        meta = begin(model, store, settings, calibration, session_id, created)

    # Everything that was answered, and what of it still counts.
    rows = store.fields()
    removed = {row.sequence for row in rows if row.removed}
    answers = AnswerLog(store)
    for row in rows:
        answers.note_durable(row.sequence, row.payload_crc)
    localizer.restore(store)
    instances.restore(store, removed)

    def rows_of(sequence: int) -> list[InstanceRow]:
        store.flush()
        return store.instances(sequence)

    def states() -> list[tuple[int, bytes]]:
        store.flush()
        return list(store.states())

    bag = Bag(model.aggregator, states)
    bag.load()
    gate = open_gate(model, settings, calibration)
    light = LightHistory(checked=checks_light(settings, model), insisted=settings.insist_light)
    light.restore(meta.get(LIGHT, ""))
    stain = stain_transform(model.input, calibration)
    camera = camera_correction(calibration, model.bundle.digest)
    return SessionState(
        session_id=session_id,
        settings=settings,
        created=created,
        localizer=localizer,
        instances=instances,
        processor=FieldProcessor(model, localizer, instances, gate, light, stain, rows_of, camera),
        bag=bag,
        answers=answers,
        runners=RunnerHistory(meta),
        light=light,
        frame_size=frame_size,
        removed=removed,
        verdicts=Counter(Verdict(row.verdict) for row in rows),
        revision=int(meta.get(REVISION, 0)),
        closed=meta.get(STATE) == "closed",
        expired=EXPIRED in meta,
    )


def begin(
    model: Model,
    store: SessionFile,
    settings: SessionSettings,
    calibration: Calibration | None,
    session_id: str,
    created: float,
) -> dict[str, str]:
    """Write what a new session is opened with; it is durable when this returns.

    Returns:
        The meta table.

    Raises:
        StoreError: It cannot be written.
    """
    meta = first_meta(model, settings, session_id, created)
    kept = {FIRST_META: with_own_digest(meta), **attachments(calibration)}
    store.append(Change(meta=meta, attachments=kept)).result()
    return meta


def check_opening(
    model: Model, settings: SessionSettings, calibration: Calibration | None = None
) -> SessionSettings:
    """Check that a session could be opened so, without opening one; return its whole settings.

    Raises:
        BundleError: The bundle has no extractor.
        CalibrationError: The calibration is another one, or lacks what the bundle needs.
        PixelSizeError: The pixel size does not fit the bundle.
        UsageError: Independent fields, and a bundle whose instances are cells.
    """
    complete = complete_settings(settings, model, calibration)
    open_instances(model, complete, None)
    return complete


def stored_frame_size(meta: dict[str, str]) -> tuple[int, int] | None:
    """Return the (height, width) of a stored session's fields, px; None before the first."""
    if FRAME_SIZE not in meta:
        return None
    height, width = json.loads(meta[FRAME_SIZE])
    return height, width
