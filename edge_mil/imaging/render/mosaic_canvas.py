"""The slide as far as it was seen, at low resolution: fields laid on one sheet."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.types import Region, UInt8Array

PAPER = 255
"""What was not seen is white, as the page is."""

JPEG_QUALITY = 85

BLOCK_PX = 256
"""The sheet grows by whole blocks, so that it is seldom copied."""

INSIDE = 254
"""A mask pixel of this level or more lies wholly inside of the field."""


class MosaicCanvas:
    """A sheet on the lattice of the stage; later fields cover earlier ones. One owner.

    Attributes:
        um_per_px: Size of its pixels; pixel (0, 0) of the lattice begins at stage (0, 0).
    """

    def __init__(self, um_per_px: float) -> None:
        """Begin with an empty sheet."""
        self.um_per_px = um_per_px
        self._sheet: UInt8Array = np.empty((0, 0, 3), dtype=np.uint8)
        self._left = self._top = 0
        self._shown: list[int] = []

    def lay(
        self,
        picture: UInt8Array,
        x_um: float,
        y_um: float,
        um_per_px: npt.NDArray[np.float64],
    ) -> None:
        """Lay a field.

        Args:
            picture: RGB uint8, shape (h, w, 3), of any resolution.
            x_um: Stage x of its centre, um.
            y_um: Stage y of its centre, um.
            um_per_px: Pixels (x, y) of the picture to stage um, float64 (2, 2); diagonal and
                positive where the camera is parallel to the stage.
        """
        height, width = picture.shape[:2]
        half = np.abs(um_per_px) @ (width / 2, height / 2)
        x0, x1 = _ends(x_um, half[0], self.um_per_px)
        y0, y1 = _ends(y_um, half[1], self.um_per_px)
        self._grow(x0, y0, x1, y1)
        place = self._sheet[y0 - self._top : y1 - self._top, x0 - self._left : x1 - self._left]
        straight = not um_per_px[0, 1] and not um_per_px[1, 0] and (np.diag(um_per_px) > 0).all()
        if straight:
            cv2.resize(picture, (x1 - x0, y1 - y0), dst=place, interpolation=cv2.INTER_AREA)
            return
        # Shrunk first: warpAffine alone would take one pixel in so many.
        step = np.sqrt(abs(np.linalg.det(um_per_px))) / self.um_per_px
        size = max(1, round(width * step)), max(1, round(height * step))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        scale = np.diag((width / size[0], height / size[1]))
        matrix = um_per_px @ scale / self.um_per_px
        at = np.array((x_um, y_um)) / self.um_per_px - (x0, y0)
        # Pixel n has its centre at n + 0.5, in the picture and on the sheet.
        shift = at - matrix @ (np.array(size) / 2) + matrix @ (0.5, 0.5) - 0.5
        warp = np.column_stack((matrix, shift))
        out = (x1 - x0, y1 - y0)
        turned = cv2.warpAffine(small, warp, out, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(np.full(small.shape[:2], 255, np.uint8), warp, out)
        inside = mask >= INSIDE
        place[inside] = turned[inside]

    def picture(self) -> tuple[UInt8Array, Region]:
        """Return what was laid, RGB uint8 (h, w, 3), and where it lies, stage um; a copy."""
        if not self._shown:
            return np.empty((0, 0, 3), dtype=np.uint8), Region(0.0, 0.0, 0.0, 0.0)
        x0, y0, x1, y1 = self._shown
        unit = self.um_per_px
        seen = self._sheet[y0 - self._top : y1 - self._top, x0 - self._left : x1 - self._left]
        return seen.copy(), Region(x0 * unit, y0 * unit, (x1 - x0) * unit, (y1 - y0) * unit)

    def _grow(self, x0: int, y0: int, x1: int, y1: int) -> None:
        old, left, top = self._sheet, self._left, self._top
        if self._shown:
            a, b, c, d = self._shown
            self._shown = [min(a, x0), min(b, y0), max(c, x1), max(d, y1)]
        else:
            self._shown = [x0, y0, x1, y1]
        inside = left <= x0 and top <= y0 and x1 <= left + old.shape[1] and y1 <= top + len(old)
        if inside and old.size:
            return
        a, b, c, d = self._shown
        new_left, new_top = _down(a), _down(b)
        width, height = -_down(-c) - new_left, -_down(-d) - new_top
        sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
        if old.size:
            x, y = left - new_left, top - new_top
            # The old sheet is whole blocks around what was shown, which the new one holds.
            sheet[y : y + len(old), x : x + old.shape[1]] = old
        self._sheet, self._left, self._top = sheet, new_left, new_top


def as_jpeg(picture: UInt8Array) -> bytes:
    """Return an RGB uint8 picture (h, w, 3) as JPEG."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _ends(centre_um: float, half_um: float, unit_um: float) -> tuple[int, int]:
    """Return first and last-but-one pixel; rounded at both ends, so that neighbours meet."""
    start = round((centre_um - half_um) / unit_um)
    return start, max(start + 1, round((centre_um + half_um) / unit_um))


def _down(px: int) -> int:
    return math.floor(px / BLOCK_PX) * BLOCK_PX
