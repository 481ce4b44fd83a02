"""Cells of a session whose stage says where fields lie: checked, and refined by a few pixels."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

from edge_mil.imaging.registration import StageCheck, StageComparison, StageOffset
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.stage_contradiction import MAX_STAGE_ERROR_UM
from edge_mil.session.instances.base import InstancePlan, rejected
from edge_mil.session.instances.grid_instances import GridInstances, check_size
from edge_mil.session.instances.wrapped import Placed, WrappedMap, from_row, to_row
from edge_mil.session.settings import SessionSettings
from edge_mil.store import SessionReader
from edge_mil.types import Frame, Measure, Verdict

CONFIRMED = "stage_axes_confirmed"
"""Name in the file's meta table: which axes the pictures have confirmed."""

OFFSET = "stage_offset_px"
"""Name of what is known of the pictures' offset against the stage."""

SMALLEST_PX = 96
"""Shorter side of a field that can be told from another by its picture."""


class StageLocalizer(WrappedMap):
    """Sets pictures against the stage's positions before cells are counted at them."""

    def __init__(self, inner: GridInstances, settings: SessionSettings) -> None:
        super().__init__(inner)
        self._settings = settings
        self._check: StageCheck | None = None
        self._records: SessionReader | None = None

    def recall(self, records: SessionReader) -> None:
        """Take the key fields that are stored, when the first field says how large fields are."""
        self._records = records

    def look(self, sequence: int, frame: Frame) -> InstancePlan:
        """Judge a field; see `InstanceMap.look`.

        Raises:
            PositionError: The first fields that overlap say that the stage's axes are wrong.
            PixelSizeError: They say that its micrometres are others than the pixel size's.
        """
        if frame.x_um is None or frame.y_um is None or min(_size(frame)) < SMALLEST_PX:
            return self._inner.look(sequence, frame)
        check_size(frame, self._inner.size)
        place = self._against(frame).compare(
            sequence, RegistrationPyramid.of(frame.pixels), frame.x_um, frame.y_um
        )
        if not place.located:
            return rejected(Verdict.UNLOCATED, _measures(place))
        located = self._moved(frame, place.shift_px)
        look = self._inner.look(sequence, located)
        key = None if look.verdict is Verdict.BLANK else place.key
        place = dataclasses.replace(place, key=key)
        return dataclasses.replace(
            look,
            measures=look.measures + _measures(place),
            at_um=None if located is frame else (located.x_um or 0.0, located.y_um or 0.0),
            keys=() if key is None else (to_row(key),),
            meta=self._learnt_by(place),
            token=Placed(look, place),
        )

    def apply(self, look: InstancePlan) -> None:
        """Hold what the field brought."""
        placed = look.token
        if not isinstance(placed, Placed):
            self._inner.apply(look)
            return
        self._inner.apply(placed.inner)
        assert self._check is not None
        assert isinstance(placed.place, StageComparison)
        self._check.commit(placed.place)

    def _against(self, frame: Frame) -> StageCheck:
        """Return the check, made at the first field and after a restart from what is stored."""
        size = _size(frame)
        if self._check is None or self._check.size_px != size:
            settings = self._settings
            self._check = StageCheck(size, settings.mpp, settings.stage_affine)
            if self._records is not None:
                self._check.keys.load = self._records.key_picture
                meta = self._records.meta()
                x, y = json.loads(meta.get(CONFIRMED, "[false, false]"))
                offset = StageOffset(*json.loads(meta.get(OFFSET, "[]")))
                keys = [from_row(row) for row in self._records.key_fields()]
                self._check.restore(keys, confirmed=(x, y), offset=offset)
        return self._check

    def _moved(self, frame: Frame, shift_px: tuple[int, int]) -> Frame:
        """Return the frame at the place that its picture shows."""
        if shift_px == (0, 0) or frame.x_um is None or frame.y_um is None:
            return frame
        mpp = self._settings.mpp
        a, b, c, d = self._settings.stage_affine or (mpp, 0.0, 0.0, mpp)
        dx, dy = shift_px
        return dataclasses.replace(
            frame, x_um=frame.x_um + a * dx + b * dy, y_um=frame.y_um + c * dx + d * dy
        )

    def _learnt_by(self, place: StageComparison) -> Mapping[str, str]:
        """Return what a field says of the stage, as the file keeps it."""
        assert self._check is not None
        before, learnt = self._check.confirmed, {}
        after = (before[0] or place.confirmed[0], before[1] or place.confirmed[1])
        if after != before:
            learnt[CONFIRMED] = json.dumps(after)
        if place.offset not in (None, self._check.offset):
            assert place.offset is not None
            learnt[OFFSET] = json.dumps([place.offset.x, place.offset.y, place.offset.fields])
        return learnt


def _size(frame: Frame) -> tuple[int, int]:
    return frame.width_px, frame.height_px


def _measures(place: StageComparison) -> tuple[Measure, ...]:
    found: list[Measure] = []
    if math.isfinite(place.response):
        passed = place.located
        found.append(Measure("registration_response", place.response, place.needed, passed))
    if place.shift_px != (0, 0):
        found.append(Measure("stage_error_px", math.hypot(*place.shift_px)))
    if place.disagreement_um:
        found.append(
            Measure("stage_disagreement_um", place.disagreement_um, MAX_STAGE_ERROR_UM, False)
        )
    if place.scale_ratio != 1.0:
        found.append(Measure("scale_ratio", place.scale_ratio, 1.0, False))
    return tuple(found)
