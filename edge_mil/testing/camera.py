"""A fake camera: fields of synthetic tissue on a stage, moved by hand, or of many locations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from edge_mil.errors import UsageError
from edge_mil.protocols import Camera
from edge_mil.types import Float64Array, Frame, Region, UInt8Array, check_mpp

Positions = Literal["stage", "none", "independent"]

GLASS = (240.0, 240.0, 240.0)
"""Colour of empty glass, RGB: the nominal background of the tissue test."""

EOSIN, HAEMATOXYLIN = (18.0, 75.0, 40.0), (95.0, 85.0, 30.0)
"""Grey levels of red, green and blue that each stain absorbs at most."""

STROMA_PX, NUCLEI_PX = (64, 24), (10, 5)
"""Sizes of the structure of each stain, pixels: coarse, and fine enough for registration."""

MARGIN = 1 / 8
"""Share of the slide's sides that is glass, around the tissue."""


class FakeCamera(Camera):
    """Yields fields of synthetic tissue along a serpentine; the same arguments, the same frames.

    It needs NumPy only. Fields overlap and show one slide, so that a session joins their cells
    or, without positions, locates them by content.
    """

    def __init__(
        self,
        columns: int = 4,
        rows: int = 3,
        *,
        field_px: tuple[int, int] = (320, 240),
        mpp: float | None = 0.5,
        overlap: float | None = None,
        positions: Positions = "stage",
        seed: int = 0,
    ) -> None:
        """Make a slide.

        Args:
            columns: Fields in a row.
            rows: Rows of fields.
            field_px: Width and height of a field, pixels.
            mpp: Pixel size, um/px; None: the camera does not know it.
            overlap: Share of a field that its neighbour shows again, 0 to 0.9; None: 0.1, and
                0.6 without positions, which registration needs.
            positions: "stage": frames have a stage position; "none": the slide is moved by hand;
                "independent": each frame is a location of its own, with an id.
            seed: Of the tissue.

        Raises:
            UsageError: There is no field, or the overlap is outside of 0 to 0.9.
            PixelSizeError: The pixel size is impossible.
        """
        if overlap is None:
            overlap = 0.6 if positions == "none" else 0.1
        if min(columns, rows, *field_px) < 1 or not 0 <= overlap <= 0.9:
            raise UsageError(
                f"A fake camera needs fields and an overlap of 0 to 0.9, got {columns} x {rows} "
                f"fields of {field_px[0]} x {field_px[1]} px and {overlap:g}."
            )
        self._mpp = None if mpp is None else check_mpp(mpp)
        self._positions, self._field_px = positions, field_px
        width, height = field_px
        step_x, step_y = (max(1, round(side * (1 - overlap))) for side in field_px)
        self._corners = [
            (step_x * (i if j % 2 == 0 else columns - 1 - i), step_y * j)
            for j in range(rows)
            for i in range(columns)
        ]
        self._size_px = (width + (columns - 1) * step_x, height + (rows - 1) * step_y)
        self._pixels = _painted(*self._size_px, seed)

    @property
    def mpp(self) -> float | None:
        return self._mpp

    @property
    def hand_moved(self) -> bool:
        return self._positions == "none"

    @property
    def area(self) -> Region | None:
        """The whole slide, stage um; None without a stage or a pixel size."""
        if self._positions != "stage" or self._mpp is None:
            return None
        width, height = self._size_px
        return Region(0.0, 0.0, width * self._mpp, height * self._mpp)

    @property
    def tissue(self) -> tuple[Region, ...]:
        """The rectangle that the tissue fills, stage um; empty without a stage or a pixel size."""
        area = self.area
        if area is None:
            return ()
        x, y = MARGIN * area.width_um, MARGIN * area.height_um
        return (Region(x, y, area.width_um - 2 * x, area.height_um - 2 * y),)

    @property
    def retakes(self) -> int:
        return 1

    def retake(self, frame: Frame) -> Frame:
        return self._frame(int(frame.name.rpartition(" ")[2]))

    def frames(self) -> Iterator[Frame]:
        return (self._frame(number) for number in range(len(self._corners)))

    def _frame(self, number: int) -> Frame:
        (x, y), (width, height) = self._corners[number], self._field_px
        pixels = np.ascontiguousarray(self._pixels[y : y + height, x : x + width])
        name = f"field {number}"
        if self._positions == "independent":
            return Frame(pixels, location_id=name, name=name)
        if self._positions == "none":
            return Frame(pixels, name=name)
        unit = self._mpp or 1.0
        return Frame(pixels, (x + width / 2) * unit, (y + height / 2) * unit, name=name)


def _painted(width: int, height: int, seed: int) -> UInt8Array:
    """Return a slide of tissue with a rim of glass, RGB uint8 (height, width, 3)."""
    chance = np.random.default_rng(seed)
    eosin = np.mean([_blotches(width, height, size, chance) for size in STROMA_PX], axis=0)
    nuclei = np.mean([_blotches(width, height, size, chance) for size in NUCLEI_PX], axis=0)
    # Nuclei are the peaks of the fine noise; at the rim the tissue fades to glass.
    haematoxylin = np.clip(4 * (nuclei - 0.5), 0, 1)
    inside = _ramp(width)[None, :] * _ramp(height)[:, None]
    absorbed = (0.4 + 0.6 * eosin)[..., None] * EOSIN + haematoxylin[..., None] * HAEMATOXYLIN
    levels = np.rint(GLASS - inside[..., None] * absorbed)
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def _ramp(length: int) -> Float64Array:
    """Return 1 inside the margin and 0 outside, with a linear ramp between."""
    edge = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / length
    ramp: Float64Array = np.clip((edge - MARGIN) * 10 / MARGIN, 0, 1)
    return ramp


def _blotches(width: int, height: int, size: int, chance: np.random.Generator) -> Float64Array:
    """Return smooth noise 0 to 1: random values on a coarse grid, interpolated bilinearly."""
    grid = chance.random((height // size + 2, width // size + 2))
    for axis, length in ((0, height), (1, width)):
        at = np.arange(length) / size
        low = at.astype(int)
        weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        grid = grid.take(low, axis) * (1 - weight) + grid.take(low + 1, axis) * weight
    return grid
