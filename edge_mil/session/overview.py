"""The mosaic of a session: its accepted fields' small pictures, painted from what is stored.

Painted from the store alone, in the order of sequence numbers, it is the same after a restart.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.imaging.overview import Overview
from edge_mil.session.settings import SessionSettings
from edge_mil.session.views import SlideMosaic
from edge_mil.store import SessionReader
from edge_mil.types import UInt8Array

FINEST_UM = 8.0
"""Pixels of the mosaic, unless the slide is too large for it: a cell of 112 um is 14 of them."""

MOST_PX = 4096
"""Long side at most: positions come from outside, and one far away must not fill the memory."""


class MosaicPainter:
    """Keeps the sheet between calls and lays only what is new; from any thread."""

    def __init__(self, store: SessionReader, settings: SessionSettings) -> None:
        self._store, self._settings = store, settings
        self._lock = threading.Lock()
        self._sheet = Overview(FINEST_UM)
        self._laid: list[tuple[int, str]] = []

    def paint(self, finest_um: float = FINEST_UM, most_px: int = MOST_PX) -> SlideMosaic | None:
        """Return the mosaic so far, None before the first accepted field with a position.

        Args:
            finest_um: Size of its pixels; doubled until its long side has `most_px` at most.
            most_px: See there.

        Raises:
            StoreError: The records cannot be read.
        """
        with self._lock:
            fields = [(s, h) for s, h in self._store.pictured() if _has_position(h)]
            if not fields:
                return None
            unit = _fitting(fields, finest_um, most_px)
            known = len(self._laid)
            # A field that was removed or moved, or that came with a smaller number.
            if unit != self._sheet.um_per_px or fields[:known] != self._laid:
                self._sheet, known = Overview(unit), 0
            for sequence, header in fields[known:]:
                self._lay(sequence, json.loads(header))
            self._laid = fields
            pixels, region = self._sheet.picture()
            return SlideMosaic(pixels, region.x_um, region.y_um, unit, fields[-1][0])

    def _lay(self, sequence: int, header: dict[str, Any]) -> None:
        jpeg = self._store.thumbnail(sequence)
        picture = cv2.imdecode(np.frombuffer(jpeg or b"", np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            return
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
        matrix = self._um_per_px(picture.astype(np.uint8, copy=False), header)
        self._sheet.lay(
            picture.astype(np.uint8, copy=False), header["x_um"], header["y_um"], matrix
        )

    def _um_per_px(self, picture: UInt8Array, header: dict[str, Any]) -> npt.NDArray[np.float64]:
        height, width = picture.shape[:2]
        affine = self._settings.stage_affine
        if affine is None:
            return np.diag((header["width_um"] / width, header["height_um"] / height))
        mpp = self._settings.mpp
        camera_px = np.diag((header["width_um"] / mpp / width, header["height_um"] / mpp / height))
        return np.array(affine, dtype=np.float64).reshape(2, 2) @ camera_px


def _has_position(header: str) -> bool:
    return json.loads(header)["x_um"] is not None


def _fitting(fields: list[tuple[int, str]], unit: float, most_px: int) -> float:
    edges = []
    for _, header in fields:
        place = json.loads(header)
        width, height = place["width_um"] / 2, place["height_um"] / 2
        x, y = place["x_um"], place["y_um"]
        edges.append((x - width, y - height, x + width, y + height))
    low, high = np.min(edges, axis=0), np.max(edges, axis=0)
    while max(high[2] - low[0], high[3] - low[1]) / unit > most_px:
        unit *= 2
    return unit
