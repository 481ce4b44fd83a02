"""Positions that a stage reports: compared with the frames, and refined by a few pixels."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from edge_mil.errors import PositionError, SessionStateError
from edge_mil.imaging.registration import (
    KeyFrame,
    PairOutcome,
    StageCheck,
    StageComparison,
    StageOffset,
)
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.stage_comparison import MAX_STAGE_ERROR_UM
from edge_mil.session.geometry import Evidence, GeometryLog
from edge_mil.session.geometry.causes import cause_of
from edge_mil.session.geometry.evidence import SeenPair
from edge_mil.session.geometry.log import RELEASE_INSIST, RELEASE_SAME
from edge_mil.session.instances.base import Localizer, Placement
from edge_mil.session.instances.rows import key_frame_from, key_frame_row
from edge_mil.session.settings import SessionSettings
from edge_mil.store import GeometryRow, SessionReader
from edge_mil.types import CheckState, Frame, Measure, SessionCheck, Verdict

CONFIRMED = "stage_axes_confirmed"
"""Name in the file's meta table: which axes of the stage the frames have confirmed."""

OFFSET = "stage_offset_px"
"""Name in the file's meta table: the offset of the frames against the stage, as far as known."""

TRUSTED = frozenset(
    {Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.UNLOCATED, Verdict.OUT_OF_DISTRIBUTION}
)
"""Verdicts whose fields say something about stage and slide: of others the images are blurred, or
show dust on glass."""

SMALLEST_PX = 96
"""Shorter side of a frame that has content enough to be registered, px."""


@dataclass(frozen=True, slots=True, eq=False)
class StagePlacement(Placement):
    """A position that the stage reported.

    Attributes:
        comparison: How it compares with the frames around it; None for a frame that is too small
            to be compared.
        evidence: What it says about stage and slide; None for such a frame, and for one that was
            refused without being compared.
    """

    comparison: StageComparison | None = None
    evidence: Evidence | None = None


class StageLocalizer(Localizer[StagePlacement]):
    """Compares each reported position with the frames before a field is counted there."""

    def __init__(self, settings: SessionSettings) -> None:
        """Start before the first field; `settings` say the pixel size and the stage's affine."""
        self._settings = settings
        self._check: StageCheck | None = None
        self._records: SessionReader | None = None
        self._log = GeometryLog(settings.mpp, insist=settings.insist_geometry)

    def check(self, frame: Frame) -> None:
        if frame.x_um is None:
            raise PositionError(
                "The field has no stage position and this session has a stage; send the stage "
                "position of the field's centre, um, or open a session without a stage."
            )

    def restore(self, records: SessionReader) -> None:
        """Read the stored key frames later: the first field says how large fields are."""
        self._records = records
        self._log.restore(row.evidence for row in records.geometry())

    @property
    def geometry(self) -> SessionCheck:
        return self._log.geometry

    @property
    def slide(self) -> SessionCheck:
        return self._log.slide

    def is_suspect(self, sequence: int) -> bool:
        return self._log.is_suspect(sequence)

    def locate(self, sequence: int, frame: Frame) -> StagePlacement:
        assert frame.x_um is not None  # checked before any gate
        assert frame.y_um is not None
        hold = self._log.hold
        if hold is not None:
            return StagePlacement(None, None, Verdict.UNLOCATED, (HELD,), explanation=hold.sentence)
        # A person who insists has said that the stage is right and the images are not.
        insisted = bool(self._log.geometry.cause or self._log.slide.cause)
        if min(_size(frame)) < SMALLEST_PX or insisted:
            return StagePlacement(frame.x_um, frame.y_um)
        comparison = self._check_for(frame).compare(
            sequence,
            RegistrationPyramid.of(frame.pixels),
            frame.x_um,
            frame.y_um,
            searches=self._log.searches,
            proven=self._log.proven,
            settled=self._log.geometry.state is CheckState.AGREES,
        )
        measures = _measures(comparison)
        evidence = self._evidence(frame.x_um, frame.y_um, comparison)
        hold = next((check for check in self._log.after(evidence) if check.held), None)
        if hold is not None or not comparison.located:
            words = hold.sentence if hold is not None else self._refusal(evidence)
            evidence = dataclasses.replace(evidence, refused=True)
            return StagePlacement(
                None,
                None,
                Verdict.UNLOCATED,
                measures if hold is None else (*measures, HELD),
                explanation=words,
                comparison=comparison,
                evidence=evidence,
            )
        x_um, y_um = self._refined(frame.x_um, frame.y_um, comparison.shift_px)
        key = comparison.key
        return StagePlacement(
            x_um,
            y_um,
            measures=measures,
            key_frames=() if key is None else (key_frame_row(key),),
            meta=self._learnt_by(comparison),
            comparison=comparison,
            evidence=evidence,
        )

    def without_tissue(self, placement: StagePlacement) -> StagePlacement:
        """Leave the key frame out: later fields would be registered with dust on glass."""
        if placement.comparison is None:
            return placement
        comparison = dataclasses.replace(placement.comparison, key=None)
        return dataclasses.replace(placement, key_frames=(), comparison=comparison)

    def commit(self, placement: StagePlacement) -> None:
        if placement.comparison is not None:
            assert self._check is not None
            self._check.commit(placement.comparison)

    def note(self, sequence: int, placement: Placement, verdict: Verdict) -> GeometryRow | None:
        if not isinstance(placement, StagePlacement) or placement.evidence is None:
            return None
        evidence, reference = placement.evidence, None
        assert placement.comparison is not None
        if verdict in TRUSTED:
            reference = placement.comparison.reference
        else:
            evidence = Evidence(sequence, evidence.at_um, searches=evidence.searches)
        self._log.add(evidence)
        if reference is None or self._log.hold is not None:
            return GeometryRow(sequence, evidence.to_json())
        assert self._check is not None
        self._check.previous = reference
        return GeometryRow(
            sequence,
            evidence.to_json(),
            json.dumps(
                [
                    reference.x,
                    reference.y,
                    reference.width_px,
                    reference.height_px,
                    reference.factor,
                ]
            ),
            reference.jpeg,
        )

    def release(self, how: str) -> GeometryRow:
        hold = self._log.hold
        if hold is None:
            return super().release(how)
        if how == RELEASE_SAME and self._log.geometry.held:
            raise SessionStateError(
                f"The session is held because its settings are wrong, and not for its slide: "
                f"{hold.sentence} Open a new session with the right settings, or insist.",
                reason="HOLD_MISMATCH",
            )
        if how not in (RELEASE_SAME, RELEASE_INSIST):
            raise SessionStateError(
                f"A held session is released as {RELEASE_SAME} or {RELEASE_INSIST}, and not as "
                f"{how[:20]!r}.",
                reason="HOLD_MISMATCH",
            )
        evidence = Evidence(0, release=how)
        self._log.add(evidence)
        return GeometryRow(0, evidence.to_json())

    def _evidence(self, x_um: float, y_um: float, comparison: StageComparison) -> Evidence:
        assert self._check is not None
        pairs = tuple(
            SeenPair(
                pair.earlier, pair.outcome, self._check.displacement_um(pair), float(pair.overlap)
            )
            for pair in comparison.pairs
        )
        return Evidence(
            comparison.sequence, (x_um, y_um), pairs, comparison.searches, comparison.scale_ratio
        )

    def _refusal(self, evidence: Evidence) -> str:
        """Return why one field does not lie where the stage says."""
        moves = self._log.moves_of(evidence)
        wrong = [move for move in moves if move.error_um > MAX_STAGE_ERROR_UM]
        cause = cause_of(wrong, self._settings.mpp) if wrong and not self._log.proven else None
        if cause is not None:
            return cause.sentence
        if evidence.scale_ratio != 1.0 or wrong:
            return ""  # the measures say it
        earlier = next(p.earlier for p in evidence.pairs if p.outcome is PairOutcome.DIFFERS)
        return (
            f"By its position the field should show a part of field {earlier}, and nothing of it "
            "is there. Was the slide moved or exchanged, or had the stage not settled?"
        )

    def _check_for(self, frame: Frame) -> StageCheck:
        """Return the check for frames of this size; made anew from the records after a restart."""
        size = _size(frame)
        if self._check is None or self._check.size_px != size:
            settings = self._settings
            self._check = StageCheck(size, settings.mpp, settings.stage_affine)
            if self._records is not None:
                self._check.keys.load = self._records.key_frame_jpeg
                meta = self._records.meta()
                x, y = json.loads(meta.get(CONFIRMED, "[false, false]"))
                offset = StageOffset(*json.loads(meta.get(OFFSET, "[]")))
                keys = [key_frame_from(row) for row in self._records.key_frames()]
                self._check.restore(keys, confirmed=(x, y), offset=offset)
                self._check.previous = self._previous(self._records, self._check)
        return self._check

    def _previous(self, records: SessionReader, check: StageCheck) -> KeyFrame | None:
        """Return the newest field that can be registered, as before a restart."""
        refused = records.newest_reference()
        for row in reversed(records.geometry()):
            if row.sequence in check.keys:
                key = check.keys[row.sequence]
                return dataclasses.replace(
                    key, jpeg=key.jpeg or records.key_frame_jpeg(key.sequence)
                )
            if refused is not None and row.sequence == refused.sequence:
                x, y, width, height, factor = json.loads(refused.reference)
                return KeyFrame(refused.sequence, x, y, width, height, factor, refused.image)
        return None

    def _refined(self, x_um: float, y_um: float, shift_px: tuple[int, int]) -> tuple[float, float]:
        """Return the position that the frame's content shows."""
        if shift_px == (0, 0):
            return x_um, y_um
        mpp = self._settings.mpp
        a, b, c, d = self._settings.stage_affine or (mpp, 0.0, 0.0, mpp)
        dx, dy = shift_px
        return x_um + a * dx + b * dy, y_um + c * dx + d * dy

    def _learnt_by(self, comparison: StageComparison) -> Mapping[str, str]:
        """Return what a field teaches about the stage, for the file's meta table."""
        assert self._check is not None
        before, learnt = self._check.confirmed, {}
        after = (before[0] or comparison.confirmed[0], before[1] or comparison.confirmed[1])
        if after != before:
            learnt[CONFIRMED] = json.dumps(after)
        if comparison.offset is not None and comparison.offset != self._check.offset:
            offset = comparison.offset
            learnt[OFFSET] = json.dumps([offset.x, offset.y, offset.fields])
        return learnt


HELD = Measure("session_held", 1.0, 0.0, False)
"""Of a field that was refused because a check holds the session."""


def _size(frame: Frame) -> tuple[int, int]:
    return frame.width_px, frame.height_px


def _measures(comparison: StageComparison) -> tuple[Measure, ...]:
    found: list[Measure] = []
    if math.isfinite(comparison.response):
        found.append(
            Measure(
                "registration_response", comparison.response, comparison.needed, comparison.located
            )
        )
    if comparison.shift_px != (0, 0):
        found.append(Measure("stage_error_px", math.hypot(*comparison.shift_px)))
    if comparison.disagreement_um:
        found.append(
            Measure("stage_disagreement_um", comparison.disagreement_um, MAX_STAGE_ERROR_UM, False)
        )
    if comparison.scale_ratio != 1.0:
        found.append(Measure("scale_ratio", comparison.scale_ratio, 1.0, False))
    return tuple(found)
