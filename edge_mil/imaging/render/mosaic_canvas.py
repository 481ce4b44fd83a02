"""Paint the mosaic of a slide: fields at low resolution on one canvas that grows as needed."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.types import Region, UInt8Array

UNSEEN = 255
"""What was not seen is white, as the page is."""

JPEG_QUALITY = 85

BLOCK_PX = 256
"""The canvas grows by whole blocks, so that its pixels are seldom copied."""

INSIDE = 254
"""A mask pixel of this level or more lies wholly inside of the field."""


class MosaicCanvas:
    """An image on the lattice of the stage; later fields cover earlier ones. Not thread-safe.

    Attributes:
        um_per_px: Size of its pixels; pixel (0, 0) of the lattice begins at stage (0, 0).
    """

    def __init__(self, um_per_px: float) -> None:
        self.um_per_px = um_per_px
        self._pixels: UInt8Array = np.empty((0, 0, 3), dtype=np.uint8)
        self._left = self._top = 0
        self._painted: tuple[int, int, int, int] | None = None

    def paint(
        self,
        image: UInt8Array,
        x_um: float,
        y_um: float,
        um_per_px: npt.NDArray[np.float64],
    ) -> None:
        """Paint a field over what is there.

        Args:
            image: The field, RGB uint8 (h, w, 3), at any resolution.
            x_um: Stage x of its centre, um.
            y_um: Stage y of its centre, um.
            um_per_px: Pixels (x, y) of the image to stage um, float64 (2, 2); diagonal and
                positive where the camera is parallel to the stage.
        """
        # The rectangle of the lattice that holds the field, turned or not.
        height, width = image.shape[:2]
        half = np.abs(um_per_px) @ (width / 2, height / 2)
        x0, x1 = _ends(x_um, half[0], self.um_per_px)
        y0, y1 = _ends(y_um, half[1], self.um_per_px)
        self._grow(x0, y0, x1, y1)
        below = self._pixels[y0 - self._top : y1 - self._top, x0 - self._left : x1 - self._left]

        # A camera that is parallel to the stage: resized in place.
        parallel = not um_per_px[0, 1] and not um_per_px[1, 0] and (np.diag(um_per_px) > 0).all()
        if parallel:
            cv2.resize(image, (x1 - x0, y1 - y0), dst=below, interpolation=cv2.INTER_AREA)
            return

        # Else shrunk first, since warpAffine alone would take one pixel in many, then turned.
        step = np.sqrt(abs(np.linalg.det(um_per_px))) / self.um_per_px
        size = max(1, round(width * step)), max(1, round(height * step))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        scale = np.diag((width / size[0], height / size[1]))
        matrix = um_per_px @ scale / self.um_per_px
        centre = np.array((x_um, y_um)) / self.um_per_px - (x0, y0)
        # Pixel n has its centre at n + 0.5, in the image and on the canvas.
        shift = centre - matrix @ (np.array(size) / 2) + matrix @ (0.5, 0.5) - 0.5
        warp = np.column_stack((matrix, shift))
        out = (x1 - x0, y1 - y0)
        turned = cv2.warpAffine(small, warp, out, borderMode=cv2.BORDER_REPLICATE)

        # Only pixels that lie wholly inside of the turned field cover what is there.
        mask = cv2.warpAffine(np.full(small.shape[:2], 255, np.uint8), warp, out)
        inside = mask >= INSIDE
        below[inside] = turned[inside]

    def snapshot(self) -> tuple[UInt8Array, Region]:
        """Return a copy of what was painted, RGB uint8 (h, w, 3), and where it lies, stage um."""
        if self._painted is None:
            return np.empty((0, 0, 3), dtype=np.uint8), Region(0.0, 0.0, 0.0, 0.0)
        x0, y0, x1, y1 = self._painted
        unit = self.um_per_px
        seen = self._pixels[y0 - self._top : y1 - self._top, x0 - self._left : x1 - self._left]
        return seen.copy(), Region(x0 * unit, y0 * unit, (x1 - x0) * unit, (y1 - y0) * unit)

    def _grow(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Make room for the pixels x0, y0 to x1, y1 of the lattice."""
        old, left, top = self._pixels, self._left, self._top
        if self._painted is not None:
            a, b, c, d = self._painted
            self._painted = min(a, x0), min(b, y0), max(c, x1), max(d, y1)
        else:
            self._painted = x0, y0, x1, y1
        inside = left <= x0 and top <= y0 and x1 <= left + old.shape[1] and y1 <= top + len(old)
        if inside and old.size:
            return
        a, b, c, d = self._painted
        new_left, new_top = _down(a), _down(b)
        width, height = -_down(-c) - new_left, -_down(-d) - new_top
        pixels = np.full((height, width, 3), UNSEEN, dtype=np.uint8)
        if old.size:
            # The old canvas is whole blocks around what was painted, which the new one holds.
            x, y = left - new_left, top - new_top
            pixels[y : y + len(old), x : x + old.shape[1]] = old
        self._pixels, self._left, self._top = pixels, new_left, new_top


def as_jpeg(pixels: UInt8Array) -> bytes:
    """Return RGB uint8 pixels (h, w, 3) as JPEG."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _ends(centre_um: float, half_um: float, unit_um: float) -> tuple[int, int]:
    """Return the first pixel and the one after the last; rounded, so that neighbours meet."""
    start = round((centre_um - half_um) / unit_um)
    return start, max(start + 1, round((centre_um + half_um) / unit_um))


def _down(px: int) -> int:
    """Return the largest multiple of `BLOCK_PX` that is not above `px`."""
    return math.floor(px / BLOCK_PX) * BLOCK_PX
