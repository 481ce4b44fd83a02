"""Positions that a stage reports: compared with the frames, and refined by a few pixels."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from edge_mil.errors import PositionError
from edge_mil.imaging.registration import StageCheck, StageComparison, StageOffset
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.stage_contradiction import MAX_STAGE_ERROR_UM
from edge_mil.session.instances.base import Localizer, Placement
from edge_mil.session.instances.rows import key_frame_from, key_frame_row
from edge_mil.session.settings import SessionSettings
from edge_mil.store import SessionReader
from edge_mil.types import Frame, Measure, Verdict

CONFIRMED = "stage_axes_confirmed"
"""Name in the file's meta table: which axes of the stage the frames have confirmed."""

OFFSET = "stage_offset_px"
"""Name in the file's meta table: the offset of the frames against the stage, as far as known."""

SMALLEST_PX = 96
"""Shorter side of a frame that has content enough to be registered, px."""


@dataclass(frozen=True, slots=True, eq=False)
class StagePlacement(Placement):
    """A position that the stage reported.

    Attributes:
        comparison: How it compares with the frames around it; None for a frame that is too small
            to be compared.
    """

    comparison: StageComparison | None = None


class StageLocalizer(Localizer[StagePlacement]):
    """Compares each reported position with the frames before a field is counted there."""

    def __init__(self, settings: SessionSettings) -> None:
        """Start before the first field; `settings` say the pixel size and the stage's affine."""
        self._settings = settings
        self._check: StageCheck | None = None
        self._records: SessionReader | None = None

    def check(self, frame: Frame) -> None:
        if frame.x_um is None:
            raise PositionError(
                "The field has no stage position and this session has a stage; send the stage "
                "position of the field's centre, um, or open a session without a stage."
            )

    def restore(self, records: SessionReader) -> None:
        """Read the stored key frames later: the first field says how large fields are."""
        self._records = records

    def locate(self, sequence: int, frame: Frame) -> StagePlacement:
        assert frame.x_um is not None  # checked before any gate
        assert frame.y_um is not None
        if min(_size(frame)) < SMALLEST_PX:
            return StagePlacement(frame.x_um, frame.y_um)
        comparison = self._check_for(frame).compare(
            sequence, RegistrationPyramid.of(frame.pixels), frame.x_um, frame.y_um
        )
        measures = _measures(comparison)
        if not comparison.located:
            return StagePlacement(None, None, Verdict.UNLOCATED, measures)
        x_um, y_um = self._refined(frame.x_um, frame.y_um, comparison.shift_px)
        key = comparison.key
        return StagePlacement(
            x_um,
            y_um,
            measures=measures,
            key_frames=() if key is None else (key_frame_row(key),),
            meta=self._learnt_by(comparison),
            comparison=comparison,
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
        return self._check

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
