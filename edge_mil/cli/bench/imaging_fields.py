"""The fields that `edge-mil bench imaging` is timed on: textured tissue, in the order of a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_mil.bundle import InputSpec
from edge_mil.bundle.manifest import TissueSpec
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.demo.painted_slide import MPP as PAINTED_MPP
from edge_mil.demo.painted_slide import paint_slide
from edge_mil.errors import SourceError
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.types import Float32Array, Frame, UInt8Array

FIELD_PX = (2048, 2448)
"""Rows and columns of a common camera of 5 million pixels."""

MPP = 0.25
"""Pixel size of that camera under a 40x objective, µm/px."""

SPEC = InputSpec("grid", 224, 224, 0.5, "RGB", None, None, TissueSpec())
"""Input of most models."""

STEP = 0.1
"""Share of a field between two fields of the dense path, so that they overlap by nine tenths."""

FIELDS = 8
"""Fields of a path at most."""

FIELDS_PER_SIDE = 3
"""Sides of the image that is read of a slide, in fields."""

NOISE = 1.5
"""Standard deviation of the sensor's noise, grey levels."""

VIGNETTE = 0.4
"""Share of the light that the corners lack."""

WHITE_GAINS = (1.0, 1.02, 1.06)
"""Of a slightly warm lamp."""

FRAME_S = 0.1
"""Time between two frames."""


def large_image(slide: Path | None) -> UInt8Array:
    """Return a large image at `MPP`, RGB uint8 (h, w, 3).

    Args:
        slide: A slide whose middle is read; None: the demo's painted slide, enlarged.

    Raises:
        SourceError: The slide cannot be read, or is too small.
    """
    if slide is None:
        pixels, mpp = paint_slide(3, positive=True).pixels, PAINTED_MPP
    else:
        source = SlideFile(slide)
        try:
            rows, columns = (round(FIELDS_PER_SIDE * side * MPP / source.mpp) for side in FIELD_PX)
            width, height = min(columns, source.width_px), min(rows, source.height_px)
            x, y = (source.width_px - width) // 2, (source.height_px - height) // 2
            pixels, mpp = source.read(x, y, width, height), source.mpp
        finally:
            source.close()
    size = round(pixels.shape[1] * mpp / MPP), round(pixels.shape[0] * mpp / MPP)
    if size[1] < FIELD_PX[0] or size[0] < FIELD_PX[1]:
        raise SourceError(
            f"The slide has {size[0]} x {size[1]} px at {MPP:g} µm/px, fewer than one field of "
            f"{FIELD_PX[1]} x {FIELD_PX[0]}; name a larger one."
        )
    large = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    noise = np.empty(large.shape, np.int16)
    cv2.setRNGSeed(1)
    cv2.randn(noise, np.zeros(3), np.full(3, NOISE))
    return np.asarray(cv2.add(large, noise, dtype=cv2.CV_8U), np.uint8)


def shading() -> ShadingCorrection:
    """Return the flat field of a vignette and a warm lamp."""
    side = np.linspace(-0.5, 0.5, 64, dtype=np.float32)
    light = 1 - 2 * VIGNETTE * (side[:, None] ** 2 + side[None] ** 2)
    flat: Float32Array = np.repeat((light / light.max())[:, :, None], 3, axis=2)
    return ShadingCorrection(flat.astype(np.float32), FIELD_PX, None, WHITE_GAINS)


def path(image: UInt8Array, light: ShadingCorrection, *, dense: bool) -> list[Frame]:
    """Return the frames of a path, as the camera gives them.

    Args:
        image: From `large_image`.
        light: Flat field of the optics.
        dense: Fields overlap by nine tenths; else they do not overlap.
    """
    rows, columns = FIELD_PX
    free = image.shape[0] - rows, image.shape[1] - columns
    if dense:
        down = free[0] * columns > free[1] * rows
        step, room = (round(STEP * rows), free[0]) if down else (round(STEP * columns), free[1])
        along = [k * step for k in range(min(FIELDS, room // step + 1))]
        middle = (free[1] if down else free[0]) // 2
        corners = [(middle, k) if down else (k, middle) for k in along]
    else:
        xs, ys = range(0, free[1] + 1, columns), range(0, free[0] + 1, rows)
        corners = [(x, y) for y in ys for x in xs][:FIELDS]
    return [_frame(image, light, number, corner) for number, corner in enumerate(corners)]


def without_positions(frames: Sequence[Frame]) -> list[Frame]:
    """Return the same frames of a slide that is moved by hand."""
    return [Frame(f.pixels, capture_time_s=f.capture_time_s) for f in frames]


def _frame(
    image: UInt8Array, light: ShadingCorrection, number: int, corner: tuple[int, int]
) -> Frame:
    (x, y), (rows, columns) = corner, FIELD_PX
    even = np.ascontiguousarray(image[y : y + rows, x : x + columns])
    pixels = np.asarray(cv2.multiply(even, light.divisor, scale=1 / 255), np.uint8)
    centre = (x + columns / 2) * MPP, (y + rows / 2) * MPP
    return Frame(pixels, *centre, capture_time_s=1000.0 + FRAME_S * number)
