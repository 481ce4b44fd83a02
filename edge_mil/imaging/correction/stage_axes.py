"""Turn the fields of a rotated or flipped camera to the stage's axes; resample each pixel once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.types import Float64Array, UInt8Array

Affine = tuple[float, float, float, float]
"""Camera pixel to stage um, row-major 2 x 2, both from the field's centre."""

EXACT_PX = 0.1
"""Error of a corner, camera pixels, up to which a flip or quarter turn is exact enough, so that
nothing is resampled."""

EDGE_PX = 1e-6
"""Slack of an edge, pixels: rounding errors only."""


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFrame:
    """A field with the stage's axes.

    Attributes:
        pixels: RGB uint8, shape (h, w, 3), at the session's pixel size; its centre is the field's.
        mask: Pixels that the camera saw, bool (h, w); the others mirror the field, so that there
            is no edge. None: all.
    """

    pixels: UInt8Array
    mask: npt.NDArray[np.bool_] | None


class StageAligner:
    """Turns every field of a session to the stage's axes; all fields have one size.

    Where the camera's axes are the stage's nothing is done, and after a flip or quarter turns the
    pixels are only permuted. Else each lattice pixel is one bicubic sample of the camera's pixels
    (Keys, IEEE Trans. Acoust. Speech Signal Process. 29:1153, 1981), at the same phase in every
    field, so that one mask holds for all. A scale that differs from the pixel size (by 25 % at
    most: `registration/stage_check.py`) is corrected too.

    Attributes:
        field_px: Columns and rows of a field, as the camera takes it.
        aligned: Whether the camera's axes are the stage's, so that there is nothing to do.
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
        self._matrix: Float64Array = np.array([[a, b], [c, d]], np.float64) / mpp
        self.field_px = (width_px, height_px)
        # The nearest signed permutation of the axes, and the error of a corner under it.
        quarter = np.rint(self._matrix)
        corner = np.array([width_px / 2, height_px / 2])
        error_px = float((np.abs(self._matrix - quarter) @ corner).max())
        proper = bool((np.abs(quarter).sum(axis=0) == 1).all() and abs(np.linalg.det(quarter)) == 1)
        self._quarter = quarter if proper and error_px < EXACT_PX else None
        self.aligned = self._quarter is not None and bool((self._quarter == np.eye(2)).all())
        self._mask: npt.NDArray[np.bool_] | None = None
        if self._quarter is None:
            self._out = self._extent()
            self._to_camera = self._inverse_warp()
            self._mask = self._camera_mask()

    def align(self, pixels: UInt8Array) -> AlignedFrame:
        """Turn one field to the stage's axes.

        Args:
            pixels: RGB uint8, shape (height_px, width_px, 3).

        Returns:
            The field; `pixels` themselves where the camera's axes are the stage's.
        """
        if self.aligned:
            return AlignedFrame(pixels, None)
        if self._quarter is not None:
            return AlignedFrame(_permuted(pixels, self._quarter), None)
        turned = cv2.warpAffine(
            pixels,
            self._to_camera,
            self._out,
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return AlignedFrame(turned.astype(np.uint8, copy=False), self._mask)

    def camera_box(self, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
        """Return the smallest box of camera pixels that shows a box of the aligned field.

        Both are x0, y0, x1, y1 with ends excluded; pixels beyond the camera's are cut off.
        """
        if self.aligned:
            return x0, y0, x1, y1
        width, height = self.field_px
        out_w, out_h = self.size
        corners = np.array([[x, y] for x in (x0, x1) for y in (y0, y1)], np.float64)
        inverse = np.linalg.inv(self._matrix)
        camera = (corners - (out_w / 2, out_h / 2)) @ inverse.T + (width / 2, height / 2)
        low, high = np.floor(camera.min(axis=0) + EDGE_PX), np.ceil(camera.max(axis=0) - EDGE_PX)
        return (
            min(max(0, int(low[0])), width - 1),
            min(max(0, int(low[1])), height - 1),
            max(min(width, int(high[0])), 1),
            max(min(height, int(high[1])), 1),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of an aligned field."""
        if self._quarter is None:
            return self._out
        width, height = self.field_px
        return (width, height) if self._quarter[0, 0] else (height, width)

    def _extent(self) -> tuple[int, int]:
        """Return the columns and rows of the lattice whose centres the camera may see.

        Even or odd as the camera's are, so that whole pixels stay whole.
        """
        half_field = np.array([self.field_px[0] - 1, self.field_px[1] - 1]) / 2
        half_extent = np.abs(self._matrix) @ half_field
        sides = []
        for side, half in zip(self.field_px, half_extent, strict=True):
            most = math.floor(2 * half + EDGE_PX) + 1
            sides.append(max(1, most - (most - side) % 2))
        return sides[0], sides[1]

    def _inverse_warp(self) -> Float64Array:
        """Return the matrix (2, 3) from a lattice pixel's index to the camera pixel's."""
        inverse = np.linalg.inv(self._matrix)
        out, size = np.array(self._out) / 2 - 0.5, np.array(self.field_px) / 2 - 0.5
        return np.column_stack([inverse, size - inverse @ out])

    def _camera_mask(self) -> npt.NDArray[np.bool_]:
        """Return the lattice pixels whose centres lie between the camera's outer centres."""
        columns, rows = np.arange(self._out[0]), np.arange(self._out[1])
        (a, b, x), (c, d, y) = self._to_camera
        u = (a * columns + x)[None, :] + (b * rows)[:, None]
        v = (c * columns + y)[None, :] + (d * rows)[:, None]
        width, height = self.field_px
        inside: npt.NDArray[np.bool_] = (
            (u >= -EDGE_PX)
            & (u <= width - 1 + EDGE_PX)
            & (v >= -EDGE_PX)
            & (v <= height - 1 + EDGE_PX)
        )
        return inside


def _permuted(pixels: UInt8Array, quarter: Float64Array) -> UInt8Array:
    """Flip, and turn by quarters, without changing a value."""
    if not quarter[0, 0]:
        # The camera's rows run along the stage's x.
        pixels = pixels.transpose(1, 0, 2)
        flip_x, flip_y = quarter[0, 1] < 0, quarter[1, 0] < 0
    else:
        flip_x, flip_y = quarter[0, 0] < 0, quarter[1, 1] < 0
    if flip_x:
        pixels = pixels[:, ::-1]
    if flip_y:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
