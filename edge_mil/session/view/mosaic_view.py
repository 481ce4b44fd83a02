"""The mosaic of a session: its accepted fields' small pictures, painted from what is stored.

Painted from the store alone, in the order of sequence numbers, it is the same after a restart.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.render.mosaic_canvas import MosaicCanvas
from edge_mil.session.settings import SessionSettings
from edge_mil.session.stored_fields import Headers
from edge_mil.session.view.records import SlideMosaic
from edge_mil.store import SessionReader
from edge_mil.types import Float64Array, UInt8Array

FINEST_UM = 8.0
"""Pixels of the mosaic, unless the slide is too large for it: a cell of 112 um is 14 of them."""

MOST_PX = 4096
"""Long side at most: positions come from outside, and one far away must not fill the memory."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an accepted field lies: its centre and size, stage um."""

    sequence: int
    x_um: float
    y_um: float
    width_um: float
    height_um: float


class MosaicView:
    """Keeps the sheet between calls and lays only what is new; from any thread."""

    def __init__(self, store: SessionReader, settings: SessionSettings) -> None:
        self._store, self._settings = store, settings
        self._lock = threading.Lock()
        self._sheet = MosaicCanvas(FINEST_UM)
        self._laid: list[_Place] = []

    def paint(self, finest_um: float = FINEST_UM, most_px: int = MOST_PX) -> SlideMosaic | None:
        """Return the mosaic so far, None before the first accepted field with a position.

        Args:
            finest_um: Size of its pixels; doubled until its long side has `most_px` at most.
            most_px: See there.

        Raises:
            StoreError: The records cannot be read.
        """
        with self._lock:
            places = self._places()
            if not places:
                return None
            unit = _fitting(places, finest_um, most_px)
            known = len(self._laid)
            # A field that was removed or moved, or that came with a smaller number.
            if unit != self._sheet.um_per_px or places[:known] != self._laid:
                self._sheet, known = MosaicCanvas(unit), 0
            for place in places[known:]:
                self._lay(place)
            self._laid = places
            pixels, region = self._sheet.snapshot()
            return SlideMosaic(pixels, region.x_um, region.y_um, unit, places[-1].sequence)

    def _places(self) -> list[_Place]:
        headers, found = Headers(self._store, self._settings.mpp), []
        for sequence, text in self._store.pictured():
            header = headers.read(sequence, text)
            if header["x_um"] is not None:
                numbers = (header[name] for name in ("x_um", "y_um", "width_um", "height_um"))
                found.append(_Place(sequence, *numbers))
        return found

    def _lay(self, place: _Place) -> None:
        jpeg = self._store.thumbnail(place.sequence)
        if jpeg is None:  # it was removed a moment ago
            return
        bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None  # written by `thumbnail_jpeg`
        picture = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        self._sheet.paint(picture, place.x_um, place.y_um, self._um_per_px(picture, place))

    def _um_per_px(self, picture: UInt8Array, place: _Place) -> Float64Array:
        height, width = picture.shape[:2]
        straight = np.diag((place.width_um / width, place.height_um / height))
        affine = self._settings.stage_affine
        if affine is None:
            return straight
        return np.array(affine, dtype=np.float64).reshape(2, 2) @ straight / self._settings.mpp


def _fitting(places: list[_Place], unit: float, most_px: int) -> float:
    corners = [(p.x_um - p.width_um / 2, p.y_um - p.height_um / 2) for p in places]
    ends = [(p.x_um + p.width_um / 2, p.y_um + p.height_um / 2) for p in places]
    longest = (np.max(ends, axis=0) - np.min(corners, axis=0)).max()
    while longest / unit > most_px:
        unit *= 2
    return unit
