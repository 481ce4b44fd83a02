"""One reading of one slide: add, submit, remove, release and close, each durable.

One class, longer than 300 lines: each of them changes memory and the file in the same step.
"""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.calibration import Calibration
from edge_mil.errors import SequenceError, SessionClosedError, SessionStateError
from edge_mil.pipeline import Model, load_model
from edge_mil.session.answer_log import StoredAnswer
from edge_mil.session.answers import read_answer, write_answer
from edge_mil.session.field.processor import ProcessedField, Stopwatch
from edge_mil.session.replacement import Replacement
from edge_mil.session.restore import open_state
from edge_mil.session.scorer import Scored
from edge_mil.session.settings import SessionSettings
from edge_mil.session.status import SessionStatus, StatusBoard
from edge_mil.session.stored_fields import EXPIRED, FRAME_SIZE, REVISION, STATE, field_change
from edge_mil.session.view.mosaic_view import MosaicView
from edge_mil.session.view.queries import SessionQueries
from edge_mil.store import Change, SessionFile
from edge_mil.types import FieldResult, Frame


class Session(SessionQueries):
    """One reading of one slide.

    `submit`, `add`, `remove` and `close` may be called from one thread at a time; what
    `SessionQueries` offers, and `status`, from any thread. In process::

        with edge_mil.Session("bundle", mpp=0.5) as session:
            print(session.add(frame).verdict, session.score())

    Attributes:
        session_id: Name of the session.
        model: The networks and the pooling.
        settings: What it was opened with.
        created: Seconds since the epoch.
        on_score: Called with the status when a background score comes, in the scorer's thread.
    """

    def __init__(
        self,
        model: Model | Bundle | str | Path,
        mpp: float | None = None,
        *,
        settings: SessionSettings | None = None,
        calibration: Calibration | None = None,
        store: SessionFile | None = None,
        session_id: str = "",
    ) -> None:
        """Open a session, or continue the one that `store` holds.

        Args:
            model: A loaded model, a bundle, or the path of one.
            mpp: Pixel size of the camera on the slide, µm/px; or `settings` has it.
            settings: All settings, in place of `mpp`.
            calibration: The calibration of the microscope; a stored session has its own.
            store: The session's file; None keeps the records in a temporary one.
            session_id: Name of the session.

        Raises:
            PixelSizeError: The pixel size is unknown, impossible, or does not fit the bundle.
            BundleError: The bundle cannot be read, or has no extractor.
            CalibrationError: The calibration is not the one that the settings name, or lacks
                something that the bundle needs.
            StoreError: The stored session cannot be read, or is of another bundle.
        """
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if store is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="edge-mil-")
            store = SessionFile(Path(self._temporary.name) / "session.db")
        self._store, self._released = store, False
        self._board = StatusBoard(background=False, on_score=self._announce)
        self.on_score: Callable[[SessionStatus], None] | None = None
        try:
            self.model = model if isinstance(model, Model) else _load(model)
            state = open_state(self.model, store, settings, mpp, calibration, session_id)
            self._state = state
            self.session_id, self.settings = state.session_id, state.settings
            self.created = state.created
            self._mosaic = MosaicView(store, state.settings)
            if self.model.aggregator.incremental == "whole-bag":
                self._board = StatusBoard(background=True, on_score=self._announce)
            self._update_status(self._board.request(state.bag, state.answers.last))
        except BaseException:
            self.release()  # the file is this session's: the caller may try again
            raise

    # The steps of a field

    def _process(
        self, sequence: int, frame: Frame, leaving: Replacement | None = None
    ) -> ProcessedField:
        """Take a frame through its steps; changes nothing of the session.

        A frame that one step refuses passes through the later ones with nothing to do. It was
        decoded before, in `edge_mil/rpc/image_codecs.py`; `submit` commits and answers.
        """
        steps, field = self._state.processor, ProcessedField(sequence, frame)
        watch = Stopwatch(field.timings_s)
        steps.check(field)
        steps.correct_and_gate(field)
        steps.localise(field)
        steps.plan(field)
        watch.lap("gate")
        steps.extract(field)
        steps.check_distribution(field)
        steps.attend(field)
        if leaving is None or field.plan.rejected:
            steps.fold(field)
        else:
            steps.fold(field, leaving.sequence, leaving.removal)
        watch.lap("extract")
        steps.draw_thumbnail(field)
        watch.lap("thumbnail")
        return field

    def add(self, frame: Frame, sequence: int | None = None) -> FieldResult:
        """Process, fold and store one field; return when it is durable.

        A number that was sent before gets its earlier answer, and nothing is folded.

        Raises:
            SequenceError: The number was used for other pixels.
            FrameError: The frame's size is not the session's.
            PositionError: It lacks a position or a location.
            SessionClosedError: The session is closed.
            StoreError: It could not be stored; the session must be opened again.
        """
        sequence = self._state.answers.last + 1 if sequence is None else sequence
        crc = zlib.crc32(np.ascontiguousarray(frame.pixels).data)
        earlier = self._state.answers.replay(sequence, crc)
        if earlier is not None:
            earlier.durable.result()
            return read_answer(earlier.answer)
        result, durable = self.submit(sequence, frame, payload_crc=crc)
        durable.result()
        return result

    def submit(
        self, sequence: int, frame: Frame, *, payload_crc: int = 0, replaces: int = 0
    ) -> tuple[FieldResult, Future[None]]:
        """Process and fold one field; the future is done when it is durable.

        Args:
            sequence: The client's number, 1 and up, not used before.
            frame: The field.
            payload_crc: CRC-32 of what the client sent, to recognise a replay.
            replaces: An earlier field that leaves the bag in the same durable step, unless this one
                is refused; 0 for none.

        Raises:
            SequenceError: The number was used before, or is no number; or there is no field to
                replace.
            FrameError: The frame's size is not the session's.
            PositionError: It lacks a position or a location.
            SessionClosedError: The session is closed.
        """
        self._require_open()
        state = self._state
        state.answers.require_new(sequence)
        field, leaving = self._processed(sequence, frame, replaces)
        plan = field.plan
        started = time.perf_counter()
        bag = state.bag.with_changes(field.states) if field.states else state.bag
        scored = self._board.request(bag, sequence)
        field.timings_s["fold"] = time.perf_counter() - started

        # Commit. From here on nothing can fail: memory follows what is queued for the disk.
        if not plan.rejected:
            state.localizer.commit(field.placement)
            state.instances.commit(plan)
        geometry = state.localizer.note(sequence, field.placement, plan.verdict)
        if leaving is not None:
            leaving.commit()
        state.bag = bag
        state.revision += bool(field.states)
        meta = {REVISION: str(state.revision), **state.light.note(field.light)}
        checks = state.localizer.geometry, state.localizer.slide
        coverage = state.instances.coverage()
        result = field.result(
            scored,
            state.revision,
            bag.fields,
            coverage,
            checks,
            state.light.state,
            self.settings.camera,
        )
        answer = write_answer(result)
        runner, event = state.runners.note(sequence, field.runner)
        meta.update(runner)
        if state.frame_size is None and not plan.rejected and not self.settings.independent:
            state.frame_size = (frame.height_px, frame.width_px)
            meta[FRAME_SIZE] = json.dumps(state.frame_size)
        change = field_change(
            field,
            answer,
            payload_crc=payload_crc,
            mpp=self.settings.mpp,
            to_bytes=self.model.aggregator.to_bytes,
            meta=meta,
            event=event,
            geometry=geometry,
        )
        durable = self._store.append(change if leaving is None else leaving.added_to(change))
        state.answers.note(sequence, StoredAnswer(payload_crc, answer, durable))
        state.verdicts[plan.verdict] += 1
        self._update_status(scored)
        return result, durable

    def _processed(
        self, sequence: int, frame: Frame, replaces: int
    ) -> tuple[ProcessedField, Replacement | None]:
        """Return a processed field, and the one that leaves for it; None where none does."""
        if not replaces:
            return self._process(sequence, frame), None
        leaving = Replacement(self.model, self._state, self._store, replaces)
        try:
            field = self._process(sequence, frame, leaving)
        except BaseException:
            leaving.undo()
            raise
        if field.plan.rejected:
            leaving.undo()
            return field, None
        return field, leaving

    def remove(self, sequence: int, reason: str = "") -> SessionStatus:
        """Take a field's pixels and instances out of the bag; durable when it returns.

        Its record stays, flagged. Removing it again changes nothing.

        Raises:
            SequenceError: There is no such field.
            SessionClosedError: The session is closed.
            StoreError: It could not be stored.
        """
        self._require_open()
        state = self._state
        if sequence not in state.answers:
            raise SequenceError(
                f"The session has no field {sequence} to remove; list its fields first.",
                sequence=sequence,
            )
        if sequence in state.removed:
            return self.status()
        self._store.flush()
        removal = state.instances.remove(sequence)
        changes: dict[int, Any | None] = {sequence: None}
        for touched in removal.touched:
            changes[touched] = state.processor.state_without(
                touched, removal.dropped, removal.kinds
            )
        bag = state.bag.with_changes(changes)
        state.revision += 1
        to_bytes = self.model.aggregator.to_bytes
        self._store.append(
            Change(
                kinds=removal.kinds,
                states={s: None if v is None else to_bytes(v) for s, v in changes.items()},
                dropped_keys=removal.dropped,
                removed=sequence,
                event=("remove", json.dumps({"sequence": sequence, "reason": reason})),
                meta={REVISION: str(state.revision)},
            )
        ).result()
        state.bag = bag
        state.removed.add(sequence)
        self._update_status(self._board.request(bag, state.answers.last))
        return self._with_durability(self._board.final())

    def release_hold(self, how: str, reason: str = "") -> SessionStatus:
        """Let a session go on that a check holds; durable when it returns.

        Args:
            how: "same-slide": the slide was cleaned or put back, and is compared anew; "insist":
                count in spite of the contradiction, which the state still says.
            reason: For the session's events.

        Raises:
            SessionStateError: Nothing holds it, or what holds it needs another answer.
            SessionClosedError: The session is closed.
            StoreError: It could not be stored.
        """
        self._require_open()
        row = self._state.localizer.release(how)
        event = ("release", json.dumps({"how": how, "reason": reason}))
        self._store.append(Change(geometry=row, event=event)).result()
        self._update_status(self._board.request(self._state.bag, self._state.answers.last))
        return self.status()

    # The end

    def close(self) -> SessionStatus:
        """End the session: it takes no more fields, and stays readable. Again is harmless."""
        state = self._state
        if not state.closed:
            if not state.expired:
                self._store.append(Change(meta={STATE: "closed"}, event=("close", "{}"))).result()
            state.closed = True
            self._update_status(self._board.request(state.bag, state.answers.last))
        return self._with_durability(self._board.final())

    def expire(self) -> SessionStatus:
        """End the session because no field came for its idle timeout; it stays readable.

        Everything that it holds stays, its report too. Harmless where it was closed before.
        """
        state = self._state
        if not state.closed:
            meta = {STATE: "closed", EXPIRED: "1"}
            self._store.append(Change(meta=meta, event=("expire", "{}"))).result()
            state.expired = True
        return self.close()

    def release(self) -> None:
        """Give the file back; the session can be opened again."""
        if self._released:
            return
        self._released = True
        self._board.close()
        self._store.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _require_open(self) -> None:
        if self._released:
            raise SessionStateError("The session was released in this process; open it again.")
        if self._state.closed:
            raise SessionClosedError(
                f"Session {self.session_id or 'here'} is closed and takes no more fields; "
                "open a new one."
            )

    def _update_status(self, scored: Scored) -> None:
        state = self._state
        status = SessionStatus(
            revision=state.revision,
            instances=state.bag.instances,
            fields_held=state.bag.fields,
            coverage=state.instances.coverage(),
            verdicts=dict(state.verdicts),
            last_sequence=state.answers.last,
            closed=state.closed,
            light=state.light.state,
            geometry=state.localizer.geometry,
            slide=state.localizer.slide,
            expired=state.expired,
            camera=self.settings.camera,
        )
        self._board.put(status, scored)

    def _announce(self) -> None:
        if self.on_score is not None:
            self.on_score(self.status())


def _load(model: Bundle | str | Path) -> Model:
    return load_model(model if isinstance(model, Bundle) else open_bundle(model))
