"""The mosaic of a session, painted from the stored thumbnails of its accepted fields.

It depends on the store alone and on the order of sequence numbers, so it is the same after a
restart.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.render.mosaic_canvas import MosaicCanvas
from edge_mil.session.settings import SessionSettings
from edge_mil.session.stored_fields import FieldHeaders
from edge_mil.session.view.records import SlideMosaic
from edge_mil.store import SessionReader
from edge_mil.types import Float64Array, UInt8Array

FINEST_UM = 8.0
"""Size of a pixel of the mosaic, µm, unless the slide is too large: a cell of 112 µm is 14 px."""

LARGEST_PX = 4096
"""Long side at most: positions come from outside, and one far away must not fill the memory."""


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where an accepted field lies: its centre and size, stage µm."""

    sequence: int
    x_um: float
    y_um: float
    width_um: float
    height_um: float


class MosaicView:
    """Keeps the canvas between calls and paints only new fields; from any thread."""

    def __init__(self, store: SessionReader, settings: SessionSettings) -> None:
        self._store, self._settings = store, settings
        self._lock = threading.Lock()
        self._canvas = MosaicCanvas(FINEST_UM)
        self._painted: list[_Extent] = []

    def paint(
        self,
        finest_um: float = FINEST_UM,
        largest_px: int = LARGEST_PX,
        budget_s: float = math.inf,
    ) -> SlideMosaic | None:
        """Return the mosaic so far, None before the first accepted field with a position.

        Args:
            finest_um: Size of a pixel on the slide; doubled until the long side fits.
            largest_px: Long side at most.
            budget_s: Time after which painting stops; `as_of` says how far it came, and the next
                call goes on from there.

        Raises:
            StoreError: The records cannot be read.
        """
        with self._lock:
            extents = self._extents()
            if not extents:
                return None
            unit = _fitting(extents, finest_um, largest_px)
            known = len(self._painted)
            # A field that was removed or moved, or that came with a smaller number.
            if unit != self._canvas.um_per_px or extents[:known] != self._painted:
                self._canvas, known = MosaicCanvas(unit), 0
            self._painted = extents[:known]
            until = time.monotonic() + budget_s
            with self._store.snapshot() as records:
                for extent in extents[known:]:
                    self._paint_field(records, extent)
                    self._painted.append(extent)
                    if time.monotonic() > until:
                        break
            pixels, region = self._canvas.snapshot()
            as_of = self._painted[-1].sequence
            return SlideMosaic(pixels, region.x_um, region.y_um, unit, as_of)

    def _extents(self) -> list[_Extent]:
        found = []
        with self._store.snapshot() as records:
            headers = FieldHeaders(records, self._settings.mpp)
            for sequence, text in records.fields_with_thumbnail():
                header = headers.read(sequence, text)
                if header["x_um"] is not None:
                    numbers = (header[name] for name in ("x_um", "y_um", "width_um", "height_um"))
                    found.append(_Extent(sequence, *numbers))
        return found

    def _paint_field(self, records: SessionReader, extent: _Extent) -> None:
        jpeg = records.thumbnail(extent.sequence)
        if jpeg is None:  # it was removed a moment ago
            return
        bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None  # written by `thumbnail_jpeg`
        pixels = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        self._canvas.paint(pixels, extent.x_um, extent.y_um, self._um_per_px(pixels, extent))

    def _um_per_px(self, pixels: UInt8Array, extent: _Extent) -> Float64Array:
        height, width = pixels.shape[:2]
        straight = np.diag((extent.width_um / width, extent.height_um / height))
        affine = self._settings.stage_affine
        if affine is None:
            return straight
        return np.array(affine, dtype=np.float64).reshape(2, 2) @ straight / self._settings.mpp


def _fitting(extents: list[_Extent], unit: float, largest_px: int) -> float:
    corners = [(p.x_um - p.width_um / 2, p.y_um - p.height_um / 2) for p in extents]
    ends = [(p.x_um + p.width_um / 2, p.y_um + p.height_um / 2) for p in extents]
    longest = (np.max(ends, axis=0) - np.min(corners, axis=0)).max()
    while longest / unit > largest_px:
        unit *= 2
    return unit
