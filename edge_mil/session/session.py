"""One slide being read: its places, its bag, its live score, its durable records."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.calibration import Calibration
from edge_mil.errors import SequenceError, SessionClosedError, SessionStateError
from edge_mil.pipeline import Model, load_model
from edge_mil.session.answer_log import AnswerLog, StoredAnswer
from edge_mil.session.answers import read_answer, write_answer
from edge_mil.session.bag import Bag
from edge_mil.session.field.setup import (
    attached,
    declared,
    open_processor,
    settle,
    stored_calibration,
)
from edge_mil.session.instances.factory import open_instance_map
from edge_mil.session.provenance import RunnerHistory
from edge_mil.session.scorer import BackgroundScorer, Scored, Scorer
from edge_mil.session.settings import SessionSettings
from edge_mil.session.status import StatusBoard
from edge_mil.session.stored_fields import (
    CREATED,
    FRAME_SIZE,
    REVISION,
    SETTINGS,
    STATE,
    check_same,
    opening,
)
from edge_mil.session.view.mosaic_view import MosaicView
from edge_mil.session.view.queries import SessionQueries
from edge_mil.session.view.records import SessionStatus
from edge_mil.store import Change, InstanceRow, SessionFile
from edge_mil.types import FieldResult, Frame, SlideScore, Verdict


class Session(SessionQueries):
    """One reading of one slide; `submit`, `add`, `remove` and `close` from one thread at a time.

    In process::

        with edge_mil.Session("bundle", mpp=0.5) as session:
            print(session.add(frame).verdict, session.score())

    Attributes:
        session_id: Name of the session.
        model: The networks and the pooling.
        settings: What it was opened with.
        created: Seconds since the epoch.
        on_score: Told of the standing when a background score comes, in the scorer's thread.
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
        """Open a session, or go on with the one that `store` holds.

        Args:
            model: A loaded model, a bundle, or the path of one.
            mpp: Pixel size of the camera on the slide, um/px; or `settings` says it.
            settings: All settings, in place of `mpp`.
            calibration: What was measured of the microscope; a session that goes on has its own.
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
        self._frame_size: tuple[int, int] | None = None
        self._removed: set[int] = set()
        self._verdicts: Counter[Verdict] = Counter()
        self._revision = 0
        self._scorer = Scorer()
        self._board = StatusBoard()
        self.on_score: Callable[[SessionStatus], None] | None = None
        self.session_id = session_id
        try:
            self._begin(model, settings, mpp, calibration)
        except BaseException:
            self.release()  # the file is this session's: whoever is refused may try again
            raise

    def _begin(
        self,
        model: Model | Bundle | str | Path,
        settings: SessionSettings | None,
        mpp: float | None,
        calibration: Calibration | None,
    ) -> None:
        self.model = model if isinstance(model, Model) else _load(model)
        store = self._store
        meta = store.meta()
        if SETTINGS in meta:
            self.settings = SessionSettings.from_json(meta[SETTINGS])
            calibration = stored_calibration(store, self.settings)
        else:
            self.settings = settle(settings or declared(mpp, calibration), self.model, calibration)
        self.created = float(meta.get(CREATED, time.time()))
        if FRAME_SIZE in meta:
            height, width = json.loads(meta[FRAME_SIZE])
            self._frame_size = (height, width)
        self._survey = open_instance_map(self.model, self.settings, self._frame_size)
        self._survey.recall(store)
        self._painter = MosaicView(store, self.settings)
        self._reader = open_processor(
            self.model, self._survey, self.settings, calibration, self._stored_rows
        )
        self._bag = Bag(self.model.aggregator, self._stored_states)
        self._ledger = AnswerLog(store)
        self._closed = meta.get(STATE) == "closed"
        if self.model.aggregator.incremental == "whole-bag":
            self._scorer = BackgroundScorer(self._tell)
        if SETTINGS in meta:
            self._restore(meta)
        else:
            opened = opening(self.model, self.settings, self.session_id, self.created)
            self._extractions = RunnerHistory(opened)
            store.append(Change(meta=opened, attachments=attached(calibration))).result()
        self._stand(self._scorer.ask(self._bag, self._ledger.last))

    @property
    def precisions(self) -> str:
        """The precisions that made its fields: "fp32", or "fp32,int8" after a change."""
        return self._extractions.precisions

    @staticmethod
    def check(
        model: Model, settings: SessionSettings, calibration: Calibration | None = None
    ) -> None:
        """Check that a session could be opened so, without opening one.

        Raises:
            BundleError: The bundle has no extractor.
            CalibrationError: The calibration is another one, or lacks what the bundle needs.
            PixelSizeError: The pixel size does not fit the bundle.
            UsageError: Independent fields, and a bundle whose instances are cells.
        """
        open_instance_map(model, settle(settings, model, calibration), None)

    # Fields

    def add(self, frame: Frame, sequence: int | None = None) -> FieldResult:
        """Judge, fold and store one field; return when it is durable.

        A number sent before is answered as it was then, and nothing is folded.

        Raises:
            SequenceError: The number was used for other pixels.
            FrameError: The frame's size is not the session's.
            PositionError: It lacks a position or a place.
            SessionClosedError: The session is closed.
            StoreError: It could not be stored; the session must be opened again.
        """
        sequence = self._ledger.last + 1 if sequence is None else sequence
        crc = zlib.crc32(np.ascontiguousarray(frame.pixels).data)
        before = self._ledger.answer(sequence)
        if before is not None:
            if before.payload_crc != crc:
                raise self._ledger.conflict(sequence)
            before.durable.result()
            return read_answer(before.answer)
        result, durable = self.submit(sequence, frame, payload_crc=crc)
        durable.result()
        return result

    def submit(
        self, sequence: int, frame: Frame, *, payload_crc: int = 0
    ) -> tuple[FieldResult, Future[None]]:
        """Judge and fold one field; the future is done when it is durable.

        Args:
            sequence: The client's number, 1 and up, not used before.
            frame: The field.
            payload_crc: CRC-32 of what the client sent, to know the number's second coming.

        Raises:
            SequenceError: The number was used before, or is no number.
            FrameError: The frame's size is not the session's.
            PositionError: It lacks a position or a place.
            SessionClosedError: The session is closed.
        """
        self._must_be_open()
        self._ledger.must_be_new(sequence)
        reading = self._reader.read(sequence, frame)
        look, changes = reading.look, reading.states
        started = time.perf_counter()
        bag = self._bag.with_changes(changes) if changes else self._bag
        scored = self._scorer.ask(bag, sequence)
        reading.timings_s["fold"] = time.perf_counter() - started

        # From here on nothing can fail: what is in memory follows what is queued for the disk.
        if look.token is not None:
            self._survey.apply(look)
        self._bag = bag
        self._revision += bool(changes)
        coverage = self._survey.coverage()
        result = reading.result(sequence, scored, self._revision, bag.fields, coverage)
        answer = write_answer(result)
        made_by, event = self._extractions.note(sequence, reading.extractor)
        meta = {REVISION: str(self._revision), **made_by}
        if self._frame_size is None and look.token is not None and not self.settings.independent:
            self._frame_size = (frame.height_px, frame.width_px)
            meta[FRAME_SIZE] = json.dumps(self._frame_size)
        change = reading.change(
            result,
            answer,
            payload_crc=payload_crc,
            mpp=self.settings.mpp,
            to_bytes=self.model.aggregator.to_bytes,
            meta=meta,
            event=event,
        )
        durable = self._store.append(change)
        self._ledger.note(sequence, StoredAnswer(payload_crc, answer, durable))
        self._verdicts[look.verdict] += 1
        self._stand(scored)
        return result, durable

    def stored(self, sequence: int) -> StoredAnswer | None:
        """Return the answer that a number got before, None for a new number."""
        return self._ledger.answer(sequence)

    def remove(self, sequence: int, reason: str = "") -> SessionStatus:
        """Take a field's pixels and instances out of the bag; durable when it returns.

        Its record stays, flagged. Removing it again changes nothing.

        Raises:
            SequenceError: There is no such field.
            SessionClosedError: The session is closed.
            StoreError: It could not be stored.
        """
        self._must_be_open()
        if sequence not in self._ledger:
            raise SequenceError(
                f"The session has no field {sequence} to remove; list its fields first.",
                sequence=sequence,
            )
        if sequence in self._removed:
            return self.standing()
        self._store.flush()
        removal = self._survey.remove(sequence)
        changes: dict[int, Any | None] = {sequence: None}
        for touched in removal.touched:
            changes[touched] = self._reader.state_after(touched, removal.dropped, removal.kinds)
        bag = self._bag.with_changes(changes)
        self._revision += 1
        to_bytes = self.model.aggregator.to_bytes
        states = {s: None if v is None else to_bytes(v) for s, v in changes.items()}
        event = json.dumps({"sequence": sequence, "reason": reason})
        self._store.append(
            Change(
                kinds=removal.kinds,
                states=states,
                dropped_places=removal.dropped,
                removed=sequence,
                event=("remove", event),
                meta={REVISION: str(self._revision)},
            )
        ).result()
        self._bag = bag
        self._removed.add(sequence)
        self._stand(self._scorer.ask(bag, self._ledger.last))
        return self._settled()

    # What others see

    def standing(self) -> SessionStatus:
        """Return where the session stands; from any thread."""
        contiguous, beyond = self._ledger.durable()
        now = self._board.get()
        return dataclasses.replace(now, durable_sequence=contiguous, durable_beyond=beyond)

    def score(self) -> SlideScore | None:
        """Return the score of the bag, None while there is none yet; waits for a whole-bag head."""
        return self._settled().score

    # The end

    def close(self) -> SessionStatus:
        """End the session: it takes no more fields, and stays readable. Again is harmless."""
        if not self._closed:
            self._store.append(Change(meta={STATE: "closed"}, event=("close", "{}"))).result()
            self._closed = True
            self._stand(self._scorer.ask(self._bag, self._ledger.last))
        return self._settled()

    def release(self) -> None:
        """Let the file go; the session can be opened again."""
        if self._released:
            return
        self._released = True
        self._scorer.close()
        self._store.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # Inside

    def _must_be_open(self) -> None:
        if self._released:
            raise SessionStateError("The session was let go in this process; open it again.")
        if self._closed:
            raise SessionClosedError(
                f"Session {self.session_id or 'here'} is closed and takes no more fields; "
                "open a new one."
            )

    def _stored_rows(self, sequence: int) -> list[InstanceRow]:
        self._store.flush()
        return self._store.instances(sequence)

    def _stored_states(self) -> list[tuple[int, bytes]]:
        self._store.flush()
        return list(self._store.states())

    def _stand(self, scored: Scored) -> None:
        standing = SessionStatus(
            revision=self._revision,
            instances=self._bag.instances,
            fields_held=self._bag.fields,
            coverage=self._survey.coverage(),
            verdicts=dict(self._verdicts),
            last_sequence=self._ledger.last,
            closed=self._closed,
        )
        self._board.put(standing, scored)

    def _tell(self, scored: Scored) -> None:
        self._board.tell(scored)
        if self.on_score is not None:
            self.on_score(self.standing())

    def _settled(self) -> SessionStatus:
        """Return the standing with the score of all fields."""
        scored = self._scorer.wait()
        if scored is not None:
            self._stand(scored)
        return self.standing()

    def _restore(self, meta: dict[str, str]) -> None:
        check_same(meta, self.model)
        self._extractions = RunnerHistory(meta)
        self.session_id = self.session_id or meta.get("session_id", "")
        for row in self._store.fields():
            if row.removed:
                self._removed.add(row.sequence)
            self._ledger.note_durable(row.sequence, row.payload_crc)
            self._verdicts[Verdict(row.verdict)] += 1
        self._revision = int(meta.get(REVISION, 0))
        instances = self._store.instances(arrays=False)
        kept = [i for i in instances if i.sequence not in self._removed]
        self._survey.restore(kept, self._store.parts())
        self._bag.load()


def _load(model: Bundle | str | Path) -> Model:
    return load_model(model if isinstance(model, Bundle) else open_bundle(model))
