"""Positions without a stage: each frame is found among earlier ones by its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import PositionError, StoreError
from edge_mil.imaging import GridGeometry, TissueTest
from edge_mil.imaging.registration import FrameLocation, KeyFrameLocalizer
from edge_mil.imaging.registration.consensus import STRONG
from edge_mil.imaging.registration.pairwise import MIN_LEAD
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.session.instances.base import Localizer, Placement, Shift
from edge_mil.session.instances.rows import key_frame_from, key_frame_row
from edge_mil.store import LocatedRow, SessionReader
from edge_mil.types import Frame, Measure, UInt8Array, Verdict

LAST_SEEN = "last_seen"
"""Name in the file's meta table: sequence, x and y of the last field that was found."""

TISSUE_STEP_PX = 4
"""Every fourth pixel is enough to see whether a frame shows any tissue."""


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredPlacement(Placement):
    """A position found by registration.

    Attributes:
        location: What `KeyFrameLocalizer` takes over; None where nothing was found.
    """

    location: FrameLocation | None = None


class RegistrationLocalizer(Localizer[RegisteredPlacement]):
    """Registers each frame with the key frames around it.

    The first field with tissue is the origin: its top left corner is stage (0, 0).
    """

    def __init__(self, geometry: GridGeometry, tissue: TissueTest) -> None:
        """Start before the first field.

        Args:
            geometry: The session's grid.
            tissue: A frame without tissue is not registered: dust would be taken for content.
        """
        self._geometry, self._tissue = geometry, tissue
        self._localizer: KeyFrameLocalizer | None = None
        self._records: SessionReader | None = None
        self._located: dict[int, LocatedRow] = {}

    def check(self, frame: Frame) -> None:
        if frame.x_um is not None:
            raise PositionError(
                "The field has a stage position and this session was opened without a stage; "
                "send fields without one, or open a session with a stage."
            )

    def restore(self, records: SessionReader) -> None:
        """Take over the stored key frames, and where each field was found."""
        self._records = records
        self._located = {row.sequence: row for row in records.located()}
        keys = [key_frame_from(row) for row in records.key_frames()]
        if keys:
            newest = keys[-1]
            kept = json.dumps((newest.sequence, round(newest.x), round(newest.y)))
            # The name is missing where the file was damaged and a page of it could not be kept.
            sequence, x, y = json.loads(records.meta().get(LAST_SEEN, kept))
            localizer = self._localizer_for((keys[0].width_px, keys[0].height_px))
            localizer.restore(keys, (sequence, x, y))

    def locate(self, sequence: int, frame: Frame) -> RegisteredPlacement:
        """See `Localizer.locate`.

        Raises:
            StoreError: A loop was closed, and where earlier fields lie is not known.
        """
        tissue = self._tissue_share(frame.pixels)
        if not tissue.passed:
            return RegisteredPlacement(None, None, Verdict.BLANK, (tissue,))
        width, height = frame.width_px, frame.height_px
        localizer = self._localizer_for((width, height))
        location = localizer.locate(sequence, RegistrationPyramid.of(frame.pixels))
        if not location.found:
            measures = self._why_unlocated(localizer, location)
            return RegisteredPlacement(None, None, Verdict.UNLOCATED, measures)
        mpp = self._geometry.mpp
        return RegisteredPlacement(
            (location.x + width / 2) * mpp,
            (location.y + height / 2) * mpp,
            measures=(Measure("registration_response", location.response, location.needed),),
            key_frames=() if location.key is None else (key_frame_row(location.key),),
            key_positions=location.moved,
            located=_located_row(localizer, location),
            moved=self._shifts(localizer, location.moved),
            meta={LAST_SEEN: json.dumps((sequence, location.x, location.y))},
            location=location,
        )

    def commit(self, placement: RegisteredPlacement) -> None:
        assert self._localizer is not None
        assert placement.location is not None
        assert placement.located is not None
        self._localizer.commit(placement.location)
        self._located[placement.located.sequence] = placement.located

    def _localizer_for(self, size_px: tuple[int, int]) -> KeyFrameLocalizer:
        if self._localizer is None:
            self._localizer = KeyFrameLocalizer(size_px)
            if self._records is not None:
                self._localizer.keys.load = self._records.key_frame_jpeg
        return self._localizer

    def _tissue_share(self, pixels: UInt8Array) -> Measure:
        """Return the largest share of tissue in any part of the frame as large as a cell."""
        step, geometry = TISSUE_STEP_PX, self._geometry
        mask = self._tissue.mask(np.ascontiguousarray(pixels[::step, ::step]))
        share = mask.astype(np.float32) / 255
        cell = (
            max(1, min(share.shape[1], round(geometry.cell_w_px / step))),
            max(1, min(share.shape[0], round(geometry.cell_h_px / step))),
        )
        largest = float(cv2.blur(share, cell, borderType=cv2.BORDER_REFLECT).max())
        least = self._tissue.min_share
        return Measure("tissue_share", largest, least, largest >= least)

    def _why_unlocated(
        self, localizer: KeyFrameLocalizer, location: FrameLocation
    ) -> tuple[Measure, ...]:
        """Return why there is no position, and where the last field lay that had one."""
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
        if localizer.last is not None:
            sequence, x, y = localizer.last
            width, height = localizer.size_px
            mpp = self._geometry.mpp
            measures += [
                Measure("last_seen_sequence", sequence),
                Measure("last_seen_x_um", (x + width / 2) * mpp),
                Measure("last_seen_y_um", (y + height / 2) * mpp),
            ]
        return tuple(measures)

    def _shifts(
        self, localizer: KeyFrameLocalizer, moved: Mapping[int, tuple[float, float]]
    ) -> dict[int, Shift]:
        """Return how far each field moves when its key frame does; none without a closed loop."""
        if not moved:
            return {}
        if self._records is None:
            raise StoreError("The records of this session cannot be read while it goes on.")
        shifts = {}
        for sequence, row in self._located.items():
            old = localizer.keys[row.anchor].position
            new = moved.get(row.anchor) or old
            before = round(old[0] + row.dx) - row.x, round(old[1] + row.dy) - row.y
            after = round(new[0] + row.dx) - row.x, round(new[1] + row.dy) - row.y
            shifts[sequence] = Shift(before, after)
        return shifts


def _located_row(localizer: KeyFrameLocalizer, location: FrameLocation) -> LocatedRow:
    """Return how a frame was found: its offset from the key frame that it is anchored to."""
    if location.key is not None:
        anchor = location.key.position
    else:
        known = localizer.keys[location.anchor].position
        anchor = location.moved.get(location.anchor, known)
    return LocatedRow(
        location.sequence,
        location.anchor,
        location.x - anchor[0],
        location.y - anchor[1],
        location.x,
        location.y,
    )
