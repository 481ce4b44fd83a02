"""One session of the fake service: the fields that it was sent, and the score of those it holds."""

from __future__ import annotations

import json
import queue
import time
from collections import Counter
from dataclasses import dataclass

from edge_mil.errors import (
    FrameError,
    PositionError,
    SequenceError,
    SessionBusyError,
    SessionClosedError,
    SessionFencedError,
    SessionStateError,
)
from edge_mil.rpc.frames import check_payload, identity
from edge_mil.rpc.results import encode_result, encode_score, encode_verdict, timestamp
from edge_mil.testing.service_rules import CLASSES, FakeRules
from edge_mil.types import RESEARCH_USE_ONLY, FieldResult, Frame, SlideScore, UInt8Array, Verdict
from edge_mil.v1 import edge_mil_pb2 as pb


@dataclass(slots=True, eq=False)
class FakeField:
    """One answered field."""

    frame: Frame
    crc: int
    result: FieldResult
    removed: bool = False

    @property
    def held(self) -> bool:
        """Whether it counts for the score."""
        return self.result.verdict is Verdict.ACCEPTED and not self.removed


class FakeSession:
    """What `edge-mil serve` keeps of a session, in memory. Not thread-safe; `FakeService` locks.

    Attributes:
        request: The request that opened it.
        fields: Sequence number -> answered field.
        stream: Where its writing stream takes messages from; None while there is none.
        closed: Whether it takes no more fields.
    """

    def __init__(
        self, session_id: str, request: pb.OpenSessionRequest, model: pb.ModelInfo, rules: FakeRules
    ) -> None:
        self.session_id, self.request, self.closed = session_id, request, False
        self.fields: dict[int, FakeField] = {}
        self.stream: queue.SimpleQueue[object] | None = None
        self.mpp, self.mpp_source = 0.0, ""
        self._model, self._rules = model, rules
        self._revision, self._resumable = 0, False
        self._created = time.time()

    def attach(self, stream: queue.SimpleQueue[object], *, takeover: bool) -> None:
        """Let a stream write, and end another one where it takes over.

        Raises:
            SessionClosedError: The session is closed.
            SessionBusyError: Another stream writes, and `takeover` was not asked.
        """
        if self.closed:
            raise SessionClosedError(f"Session {self.session_id} is closed; open a new one.")
        if self.stream is not None:
            if not takeover:
                raise SessionBusyError(f"Another client streams to session {self.session_id}.")
            self.stream.put(SessionFencedError(f"Another client took {self.session_id} over."))
        self.stream = stream

    def detach(self, stream: queue.SimpleQueue[object]) -> None:
        """End the right of a stream to write."""
        if self.stream is stream:
            self.stream, self._resumable = None, True

    def answer(self, header: pb.FieldHeader, payload: UInt8Array) -> pb.FieldResult:
        """Answer one whole field; a number that was sent before gets the answer that it got then.

        Raises:
            EdgeMilError: The field is malformed, or its number was used for another one.
        """
        crc = identity(header, check_payload(header, payload))
        known = self.fields.get(header.sequence)
        if known is not None:
            if known.crc != crc:
                raise SequenceError(
                    f"Sequence number {header.sequence} was used for another field."
                )
            replay = encode_result(known.result)
            replay.replayed = True
            return replay
        frame = decode(header, payload)
        self._check(frame)
        if (error := self._rules.error(frame)) is not None:
            raise error
        verdict = self._rules.verdict(frame)
        accepted = verdict is Verdict.ACCEPTED
        self._revision += accepted
        held = [field.frame for field in self._held()] + [frame] * accepted
        result = FieldResult(
            sequence=header.sequence,
            verdict=verdict,
            score=self._rules.score(held) if held else None,
            revision=self._revision,
            fields_held=len(held),
            coverage=float(bool(held)),
            cells_added=int(accepted),
        )
        self.fields[header.sequence] = FakeField(frame, crc, result)
        return encode_result(result)

    def remove(self, sequence: int) -> None:
        """Take a field out of the score; again changes nothing.

        Raises:
            SequenceError: There is no such field.
        """
        if sequence not in self.fields:
            raise SequenceError(f"The session has no field {sequence}.", reason="FIELD_NOT_FOUND")
        self._revision += self.fields[sequence].held
        self.fields[sequence].removed = True

    def close(self, expected_fields: int) -> bytes:
        """Close the session and return its report as JSON.

        Raises:
            SessionStateError: It holds another number of fields than expected.
        """
        if expected_fields not in (0, len(self.fields)):
            raise SessionStateError(
                f"The client expects {expected_fields} fields and the session holds "
                f"{len(self.fields)}.",
                reason="FIELDS_MISSING",
            )
        self.closed = True
        if self.stream is not None:
            self.stream.put(SessionClosedError(f"Session {self.session_id} was closed."))
        score = self.score()
        report = {
            "notice": RESEARCH_USE_ONLY,
            "session": self.session_id,
            "bundle": self._model.bundle_digest,
            "mpp": self.mpp,
            "score": score.as_json() if score else None,
            "fields": {verdict.name: count for verdict, count in self._verdicts().items()},
        }
        return json.dumps(report, sort_keys=True, separators=(",", ":")).encode()

    def score(self) -> SlideScore | None:
        """Return the score of the fields that it holds."""
        held = [field.frame for field in self._held()]
        return self._rules.score(held) if held else None

    def influences(self, class_name: str) -> dict[int, float]:
        """Return each held field's influence: the logit with it minus the logit without it.

        0 for the only field: without it there is no score to compare with.
        """
        index, held = CLASSES.index(class_name), self._held()
        if len(held) < 2:
            return {field.result.sequence: 0.0 for field in held}
        score = self._rules.score([field.frame for field in held]).logits[index]
        found: dict[int, float] = {}
        for field in held:
            others = [other.frame for other in held if other is not field]
            found[field.result.sequence] = score - self._rules.score(others).logits[index]
        return found

    @property
    def state(self) -> pb.SessionState.ValueType:
        """State as the wire has it."""
        if self.closed:
            return pb.SESSION_STATE_CLOSED
        if self.stream is None and self._resumable:
            return pb.SESSION_STATE_SUSPENDED
        return pb.SESSION_STATE_OPEN

    def message(self) -> pb.Session:
        """Return its status."""
        durable = 0
        while durable + 1 in self.fields:
            durable += 1
        verdicts = self._verdicts()
        return pb.Session(
            session_id=self.session_id,
            state=self.state,
            durable_sequence=durable,
            durable_beyond=sorted(number for number in self.fields if number > durable),
            model=self._model,
            mpp=self.mpp,
            mpp_source=self.mpp_source,
            fields_accepted=verdicts[Verdict.ACCEPTED],
            create_time=timestamp(self._created),
            revision=self._revision,
            verdicts=[
                pb.VerdictCount(verdict=encode_verdict(verdict), count=count)
                for verdict, count in sorted(verdicts.items())
            ],
            coverage=float(bool(self._held())),
            score=self.score_message(),
            independent=self.request.independent,
            slide_label=self.request.slide_label,
            labels=dict(self.request.labels),
            calibration_id=self.request.optics.calibration_id,
        )

    def score_message(self) -> pb.Score:
        """Return the running score."""
        held = len(self._held())
        last = max(self.fields, default=0)
        return encode_score(
            self.score(),
            revision=self._revision,
            fields=held,
            coverage=float(bool(held)),
            as_of_sequence=last,
        )

    def field_message(self, sequence: int, influence: float | None = None) -> pb.FieldSummary:
        """Return one answered field."""
        field = self.fields[sequence]
        frame, answer = field.frame, encode_result(field.result)
        message = pb.FieldSummary(
            sequence=sequence,
            verdict=answer.verdict,
            cells=int(field.held),
            removed=field.removed,
            place=frame.location_id,
            coverage=field.result.coverage,
            score=answer.score,
            width_um=frame.width_px * self.mpp,
            height_um=frame.height_px * self.mpp,
            name=frame.name,
            cells_added=field.result.cells_added,
            influence=influence,
        )
        if frame.x_um is not None and frame.y_um is not None:
            message.stage_x_um, message.stage_y_um = frame.x_um, frame.y_um
        return message

    def _held(self) -> list[FakeField]:
        return [self.fields[number] for number in sorted(self.fields) if self.fields[number].held]

    def _verdicts(self) -> Counter[Verdict]:
        return Counter(field.result.verdict for field in self.fields.values())

    def _check(self, frame: Frame) -> None:
        if self.request.independent:
            return
        if frame.x_um is None and not self.request.stage.absent:
            raise PositionError("The field has no stage position; send one.")
        first = next(iter(self.fields.values()), None)
        if first is not None and first.frame.pixels.shape != frame.pixels.shape:
            raise FrameError("The field is of another size than those before it.")


def decode(header: pb.FieldHeader, payload: UInt8Array) -> Frame:
    """Return a field's frame; all but raw RGB needs OpenCV, as the real service does."""
    raw = header.encoding == pb.ENCODING_RAW and header.pixel_format == pb.PIXEL_FORMAT_RGB8
    if not raw or header.row_stride not in (0, 3 * header.width):
        from edge_mil.rpc.image_codecs import decode_frame

        return decode_frame(header, payload)
    return Frame(
        payload.reshape(header.height, header.width, 3),
        x_um=header.stage_x_um if header.HasField("stage_x_um") else None,
        y_um=header.stage_y_um if header.HasField("stage_y_um") else None,
        location_id=header.place,
        name=header.extra.get("name", ""),
    )
