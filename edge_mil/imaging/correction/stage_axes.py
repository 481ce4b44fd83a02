"""Fields of a turned or flipped camera laid parallel to the stage, each pixel resampled once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.types import Float64Array, UInt8Array

Affine = tuple[float, float, float, float]
"""Camera pixel to stage um, row-major 2 x 2, both from the picture's centre."""

EXACT_PX = 0.1
"""A corner that is off by less lies where a flip or quarter turn puts it: nothing is resampled."""

EDGE_PX = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFrame:
    """A field with the stage's axes.

    Attributes:
        pixels: RGB uint8, shape (h, w, 3), at the session's pixel size; its centre is the field's.
        mask: Which of them the camera saw, bool (h, w); the others mirror the field and are only
            there so that no edge shows. None: all.
    """

    pixels: UInt8Array
    mask: npt.NDArray[np.bool_] | None


class StageAligner:
    """Lays every field of a session on the stage's axes; all have one size.

    Where the camera is straight nothing is done, and where it is flipped or turned by quarters the
    pixels only change places. Else each lattice pixel is one cubic sample of the camera's pixels,
    at the same phase in every field, so that one mask holds for all. A scale that differs from the
    pixel size (by 25 % at most: `rpc.optics`) is undone too.

    Attributes:
        field_px: Columns and rows of a field, as the camera takes it.
        straight: Whether there is nothing to do.
    """

    def __init__(self, affine: Affine | None, mpp: float, width_px: int, height_px: int) -> None:
        """Prepare for fields of one size.

        Args:
            affine: Camera pixel to stage um; None: mpp times the identity.
            mpp: Pixel size of the session, um/px.
            width_px: Columns of a field.
            height_px: Rows of a field.
        """
        a, b, c, d = affine or (mpp, 0.0, 0.0, mpp)
        # Camera pixel to lattice pixel, both from the centre.
        self._turn: Float64Array = np.array([[a, b], [c, d]], np.float64) / mpp
        self.field_px = (width_px, height_px)
        quarter = np.rint(self._turn)
        corner = np.array([width_px / 2, height_px / 2])
        drift = float((np.abs(self._turn - quarter) @ corner).max())
        proper = bool((np.abs(quarter).sum(axis=0) == 1).all() and abs(np.linalg.det(quarter)) == 1)
        self._quarter = quarter if proper and drift < EXACT_PX else None
        self.straight = self._quarter is not None and bool((self._quarter == np.eye(2)).all())
        self._mask: npt.NDArray[np.bool_] | None = None
        if self._quarter is None:
            self._out = self._extent()
            self._matrix = self._source()
            self._mask = self._seen()

    def straighten(self, pixels: UInt8Array) -> AlignedFrame:
        """Lay one field on the stage's axes.

        Args:
            pixels: RGB uint8, shape (height_px, width_px, 3).

        Returns:
            The field; `pixels` themselves where the camera is straight.
        """
        if self.straight:
            return AlignedFrame(pixels, None)
        if self._quarter is not None:
            return AlignedFrame(_change_places(pixels, self._quarter), None)
        turned = cv2.warpAffine(
            pixels,
            self._matrix,
            self._out,
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return AlignedFrame(turned.astype(np.uint8, copy=False), self._mask)

    def camera_box(self, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
        """Return the smallest box of camera pixels that shows a box of the straight field.

        Both are x0, y0, x1, y1 with ends excluded; what lies beyond the camera is cut off.
        """
        if self.straight:
            return x0, y0, x1, y1
        width, height = self.field_px
        out_w, out_h = self.size
        corners = np.array([[x, y] for x in (x0, x1) for y in (y0, y1)], np.float64)
        inverse = np.linalg.inv(self._turn)
        seen = (corners - (out_w / 2, out_h / 2)) @ inverse.T + (width / 2, height / 2)
        low, high = np.floor(seen.min(axis=0) + EDGE_PX), np.ceil(seen.max(axis=0) - EDGE_PX)
        return (
            min(max(0, int(low[0])), width - 1),
            min(max(0, int(low[1])), height - 1),
            max(min(width, int(high[0])), 1),
            max(min(height, int(high[1])), 1),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of a straight field."""
        if self._quarter is None:
            return self._out
        width, height = self.field_px
        return (width, height) if self._quarter[0, 0] else (height, width)

    def _extent(self) -> tuple[int, int]:
        """Return the columns and rows of the lattice whose centres the camera may see.

        Even or odd as the camera's are, so that whole pixels stay whole.
        """
        inner = np.array([self.field_px[0] - 1, self.field_px[1] - 1]) / 2
        reach = np.abs(self._turn) @ inner
        sides = []
        for side, half in zip(self.field_px, reach, strict=True):
            most = math.floor(2 * half + EDGE_PX) + 1
            sides.append(max(1, most - (most - side) % 2))
        return sides[0], sides[1]

    def _source(self) -> Float64Array:
        """Return the matrix from a lattice pixel's index to the camera pixel's."""
        inverse = np.linalg.inv(self._turn)
        out, size = np.array(self._out) / 2 - 0.5, np.array(self.field_px) / 2 - 0.5
        return np.column_stack([inverse, size - inverse @ out])

    def _seen(self) -> npt.NDArray[np.bool_]:
        columns, rows = np.arange(self._out[0]), np.arange(self._out[1])
        (a, b, x), (c, d, y) = self._matrix
        u = (a * columns + x)[None, :] + (b * rows)[:, None]
        v = (c * columns + y)[None, :] + (d * rows)[:, None]
        width, height = self.field_px
        seen: npt.NDArray[np.bool_] = (
            (u >= -EDGE_PX)
            & (u <= width - 1 + EDGE_PX)
            & (v >= -EDGE_PX)
            & (v <= height - 1 + EDGE_PX)
        )
        return seen


def _change_places(pixels: UInt8Array, quarter: Float64Array) -> UInt8Array:
    """Flip, and turn by quarters, without changing a value."""
    if not quarter[0, 0]:
        # The picture's columns run along the stage's y.
        pixels = pixels.transpose(1, 0, 2)
        flip_x, flip_y = quarter[0, 1] < 0, quarter[1, 0] < 0
    else:
        flip_x, flip_y = quarter[0, 0] < 0, quarter[1, 1] < 0
    if flip_x:
        pixels = pixels[:, ::-1]
    if flip_y:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
