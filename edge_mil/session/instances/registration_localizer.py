"""Cells of a session without a stage: fields are found by what they show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import PositionError, StoreError
from edge_mil.imaging.registration import FrameLocation, KeyFrameLocalizer
from edge_mil.imaging.registration.consensus import STRONG
from edge_mil.imaging.registration.pairwise import MIN_LEAD
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.session.instances.base import InstancePlan, rejected
from edge_mil.session.instances.grid_instances import GridInstances, check_size
from edge_mil.session.instances.relocation import Relocation, Shift, relocate
from edge_mil.session.instances.wrapped import WrappedMap, from_row, to_row
from edge_mil.store import LocatedRow, SessionFile, SessionReader
from edge_mil.types import Frame, Measure, UInt8Array, Verdict

LAST_SEEN = "last_seen"
"""Name in the file's meta table: sequence, x and y of the last field that was found."""

THIN = 4
"""Every so many pixels are enough to see whether there is tissue at all."""


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The token of a look."""

    inner: InstancePlan
    location: FrameLocation
    row: LocatedRow
    survey: GridInstances


class RegistrationLocalizer(WrappedMap):
    """Finds each field by its picture, then counts its cells there.

    The first field with tissue is the origin: its top left corner is stage (0, 0).
    """

    def __init__(self, make: Callable[[], GridInstances]) -> None:
        """Begin with no field.

        Args:
            make: Gives an empty survey of cells.
        """
        super().__init__(make())
        self._make = make
        self._locator: KeyFrameLocalizer | None = None
        self._records: SessionReader | None = None
        self._located: dict[int, LocatedRow] = {}

    def check(self, frame: Frame) -> None:
        """Check size and position."""
        check_size(frame, self._inner.size)
        if frame.x_um is not None:
            raise PositionError(
                "The field has a stage position and this session was opened without a stage; "
                "send fields without one, or open a session with a stage."
            )

    def recall(self, records: SessionReader) -> None:
        """Take the key fields that are stored, and know where the records of cells are."""
        self._records = records
        self._located = {row.sequence: row for row in records.located()}
        keys = [from_row(row) for row in records.key_fields()]
        if keys:
            first = keys[0]
            self._locator = KeyFrameLocalizer((first.width_px, first.height_px))
            self._locator.keys.load = records.key_picture
            sequence, x, y = json.loads(records.meta()[LAST_SEEN])
            self._locator.restore(keys, (sequence, x, y))

    def look(self, sequence: int, frame: Frame) -> InstancePlan:
        """Judge a field; see `InstanceMap.look`."""
        self.check(frame)
        tissue = self._tissue_in(frame.pixels)
        if not tissue.passed:
            return rejected(Verdict.BLANK, (tissue,))
        size = (frame.width_px, frame.height_px)
        if self._locator is None:
            self._locator = KeyFrameLocalizer(size)
            if self._records is not None:
                self._locator.keys.load = self._records.key_picture
        location = self._locator.locate(sequence, RegistrationPyramid.of(frame.pixels))
        if not location.found:
            return rejected(Verdict.UNLOCATED, self._lost(location))
        survey, after = self._inner, None
        if location.moved:
            after = self._relocation(location)
            survey = self._survey_after(after)
        geometry = survey.geometry
        x_um = (location.x + size[0] / 2) * geometry.mpp
        y_um = (location.y + size[1] / 2) * geometry.mpp
        look = survey.look(sequence, dataclasses.replace(frame, x_um=x_um, y_um=y_um))
        row = self._row(location)
        found = dataclasses.replace(
            look,
            measures=(
                *look.measures,
                Measure("registration_response", location.response, location.needed),
            ),
            at_um=(x_um, y_um),
            keys=() if location.key is None else (to_row(location.key),),
            located=row,
            meta={LAST_SEEN: json.dumps((sequence, location.x, location.y))},
            token=_Found(look, location, row, survey),
        )
        return found if after is None else _with(found, after, location)

    def apply(self, look: InstancePlan) -> None:
        """Hold what the field brought."""
        found = look.token
        assert isinstance(found, _Found)
        assert self._locator is not None
        self._inner = found.survey
        self._inner.apply(found.inner)
        self._locator.commit(found.location)
        self._located[found.row.sequence] = found.row

    def _tissue_in(self, pixels: UInt8Array) -> Measure:
        """Return the largest share of tissue in any part of the field as large as a cell."""
        test, geometry = self._inner.tissue, self._inner.geometry
        mask = test.mask(np.ascontiguousarray(pixels[::THIN, ::THIN])).astype(np.float32) / 255
        size = (
            max(1, min(mask.shape[1], round(geometry.cell_w_px / THIN))),
            max(1, min(mask.shape[0], round(geometry.cell_h_px / THIN))),
        )
        shares = cv2.blur(mask, size, borderType=cv2.BORDER_REFLECT)
        largest = float(shares.max())
        return Measure("tissue_share", largest, test.min_share, largest >= test.min_share)

    def _lost(self, location: FrameLocation) -> tuple[Measure, ...]:
        """Return why there is no place, and the way back."""
        fit, measures = location.registration, []
        if fit is None:
            measures.append(Measure("registration_response", 0.0, location.needed, False))
        else:
            for name, value, least in (
                ("registration_response", fit.response, fit.needed),
                ("registration_lead", fit.lead, MIN_LEAD),
                ("registration_texture", fit.texture, fit.texture_needed),
                ("registration_overlap", fit.overlap, STRONG),
            ):
                measures.append(Measure(name, value, least, value >= least))
        if location.scale_ratio != 1.0:
            measures.append(Measure("scale_ratio", location.scale_ratio, 1.0, False))
        assert self._locator is not None
        if self._locator.last is not None:
            sequence, x, y = self._locator.last
            width, height = self._locator.size_px
            mpp = self._inner.geometry.mpp
            measures += [
                Measure("last_seen_sequence", sequence),
                Measure("last_seen_x_um", (x + width / 2) * mpp),
                Measure("last_seen_y_um", (y + height / 2) * mpp),
            ]
        return tuple(measures)

    def _row(self, location: FrameLocation) -> LocatedRow:
        assert self._locator is not None
        if location.key is not None:
            anchor = location.key.position
        else:
            anchor = location.moved.get(
                location.anchor, self._locator.keys[location.anchor].position
            )
        return LocatedRow(
            location.sequence,
            location.anchor,
            location.x - anchor[0],
            location.y - anchor[1],
            location.x,
            location.y,
        )

    def _now(self, row: LocatedRow, moved: dict[int, tuple[float, float]]) -> tuple[int, int]:
        """Return where a field lies by its key field's position."""
        assert self._locator is not None
        anchor = moved.get(row.anchor) or self._locator.keys[row.anchor].position
        return round(anchor[0] + row.dx), round(anchor[1] + row.dy)

    def _relocation(self, location: FrameLocation) -> Relocation:
        """Say what becomes of what is held when key fields move."""
        if not isinstance(self._records, SessionFile):
            raise StoreError("The records of this session cannot be read while it goes on.")
        self._records.flush()
        shifts = {}
        for sequence, row in self._located.items():
            (x0, y0), (x1, y1) = self._now(row, {}), self._now(row, location.moved)
            shifts[sequence] = Shift((x0 - row.x, y0 - row.y), (x1 - row.x, y1 - row.y))
        return relocate(
            self._inner.geometry,
            self._records.instances(arrays=False),
            self._records.parts(),
            shifts,
        )

    def _survey_after(self, relocation: Relocation) -> GridInstances:
        survey = self._make()
        survey.restore(relocation.rows, relocation.parts)
        return survey


def _with(look: InstancePlan, after: Relocation, location: FrameLocation) -> InstancePlan:
    """Add to a field's look what moves and what goes because of it."""
    # Records are found under their old places.
    old = {(new, owner): place for (place, owner), new in after.moved.items()}
    improved = tuple((old.get((place, owner), place), owner) for place, owner in look.dropped)
    return dataclasses.replace(
        look,
        dropped=(*after.dropped, *improved),
        moved=after.moved,
        parts_instead=after.parts,
        key_positions=location.moved,
        measures=(*look.measures, Measure("cells_counted_twice", len(after.dropped))),
    )
