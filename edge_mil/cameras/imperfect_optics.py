"""Render what an imperfect microscope's sensor receives: rotation, blur, vignette, then noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.cameras.imperfections import Imperfections, Shot
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.types import Float32Array, UInt8Array

GLASS = (243, 243, 243)
"""Empty glass under a white-balanced lamp, RGB; about that of the painted slide and of
`cmu1_small_region.svs`."""

KERNEL_PX = 4
"""Pixels on each side of a sample that Lanczos interpolation uses."""

DISC_STEPS = 5
"""Sub-pixels per side of a pixel in which a disc of confusion is drawn."""


class ImperfectOptics:
    """Renders exposures; several threads may use it at once."""

    def __init__(
        self, slide: SlideFile, faults: Imperfections, width_px: int, height_px: int
    ) -> None:
        self._slide, self._faults = slide, faults
        self._width, self._height = width_px, height_px
        self._light = _vignette(width_px, height_px, faults.vignette) if faults.vignette else None

    def expose(self, shot: Shot) -> UInt8Array:
        """Return an exposure, RGB uint8 (height, width, 3)."""
        radius = self._faults.blur_radius_px(shot)
        margin = math.ceil(radius)
        light = self._sample(shot, margin)
        if radius:
            blurred = cv2.filter2D(light.astype(np.float32, copy=False), -1, _disc(radius))
            light = np.asarray(blurred[margin:-margin, margin:-margin], np.float32)
        return self._sensor(light, shot)

    def expose_glass(self, number: int) -> UInt8Array:
        """Return an exposure of empty glass, RGB uint8 (height, width, 3), with its own noise."""
        glass = np.empty((self._height, self._width, 3), np.uint8)
        glass[...] = GLASS
        # No field has visit -1, so the noise is that of no other exposure.
        return self._sensor(glass, Shot(0, 0, visit=-1, frame=number))

    def _sensor(self, light: UInt8Array | Float32Array, shot: Shot) -> UInt8Array:
        """Apply the vignette and the camera, add noise, round and clip."""
        if self._light is not None:
            light = light * self._light
        if self._faults.camera is not None:
            light = self._faults.camera.applied(light, self._faults.sensor_chance(shot))
        if self._faults.noise:
            chance = self._faults.sensor_chance(shot)
            noise = chance.standard_normal(light.shape, dtype=np.float32)
            light = light + noise * np.float32(self._faults.noise)
        if light.dtype == np.uint8:
            return np.ascontiguousarray(light, dtype=np.uint8)
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)

    def _sample(self, shot: Shot, margin: int) -> UInt8Array | Float32Array:
        """Return the field and `margin` pixels around it, as the camera is rotated, unblurred."""
        width, height = self._width + 2 * margin, self._height + 2 * margin
        x, y = shot.x - margin, shot.y - margin
        if not self._faults.rotation_deg:
            return self._read(x, y, width, height)
        angle = math.radians(self._faults.rotation_deg)
        cos, sin = math.cos(angle), math.sin(angle)
        # Part of the slide under the rotated field, with the pixels that interpolation needs.
        reach_x = math.ceil((width * abs(cos) + height * abs(sin)) / 2) + KERNEL_PX
        reach_y = math.ceil((width * abs(sin) + height * abs(cos)) / 2) + KERNEL_PX
        centre_x, centre_y = x + width / 2, y + height / 2
        left, top = math.floor(centre_x) - reach_x, math.floor(centre_y) - reach_y
        source = self._read(left, top, 2 * reach_x + 1, 2 * reach_y + 1).astype(np.float32)
        # Rotation about the field's centre; pixel u has its centre at u + 0.5 on both sides.
        turn = np.array([[cos, -sin], [sin, cos]])
        shift = (centre_x - left, centre_y - top) - turn @ (width / 2 - 0.5, height / 2 - 0.5) - 0.5
        return cv2.warpAffine(
            source,
            np.column_stack([turn, shift]),
            (width, height),
            flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ).astype(np.float32, copy=False)

    def _read(self, x: int, y: int, width: int, height: int) -> UInt8Array:
        """Read a part of the slide; beyond its edge it continues mirrored.

        Glass there would have a straight edge that no slide has, and the motion gate could refuse
        it. A session ignores it, because the camera declares the slide's area.
        """
        columns = _mirrored(x, width, self._slide.width_px)
        rows = _mirrored(y, height, self._slide.height_px)
        x0, x1 = int(columns.min()), int(columns.max()) + 1
        y0, y1 = int(rows.min()), int(rows.max()) + 1
        pixels = self._slide.read(x0, y0, x1 - x0, y1 - y0)
        if (x0, y0, x1, y1) == (x, y, x + width, y + height):
            return pixels
        return np.ascontiguousarray(pixels[np.ix_(rows - y0, columns - x0)])


def _mirrored(start: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """Return the indices start, start + 1, ... into `size` pixels, mirrored at the ends."""
    around = np.arange(start, start + length, dtype=np.int64) % (2 * size)
    return np.minimum(around, 2 * size - 1 - around)


def _vignette(width_px: int, height_px: int, depth: float) -> Float32Array:
    """Return the light of each pixel, float32 (h, w, 1): 1 in the centre, 1 - depth in corners."""
    x = (np.arange(width_px, dtype=np.float64) + 0.5) / (width_px / 2) - 1
    y = (np.arange(height_px, dtype=np.float64) + 0.5) / (height_px / 2) - 1
    # Squared distance from the centre, as a share of the corners'.
    sides = width_px**2 + height_px**2
    squared = (x[None, :] ** 2 * width_px**2 + y[:, None] ** 2 * height_px**2) / sides
    light: Float32Array = (1 - depth * squared).astype(np.float32)[:, :, None]
    return light


def _disc(radius_px: float) -> Float32Array:
    """Return the image of a defocused point: a disc of confusion whose sum is 1, float32."""
    side = 2 * math.ceil(radius_px) + 1
    fine = (np.arange(side * DISC_STEPS) + 0.5) / DISC_STEPS - side / 2
    inside = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius_px**2).astype(np.float64)
    disc = inside.reshape(side, DISC_STEPS, side, DISC_STEPS).sum(axis=(1, 3))
    return np.asarray(disc / disc.sum(), np.float32)
