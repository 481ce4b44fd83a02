"""The global grid of a slide: the lattice of camera pixels, and the pixels that a cell covers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from edge_mil.errors import FrameError, PixelSizeError
from edge_mil.limits import MAX_FIELD_CELLS, MAX_FIELD_TILE_BYTES
from edge_mil.types import Region, check_mpp

Cell: TypeAlias = tuple[int, int]
"""A cell of the grid, (i, j): column i to the right, row j down. It identifies the instance."""

MAX_ENLARGEMENT = 1.5
"""Largest camera pixel, in model pixels: enlarging more would invent detail."""

RGB = 3
"""Bytes of a tile's pixel."""

EDGE_EPSILON_PX = 1e-4
"""Slack of a cell's edge, pixels: rounding errors must not make a box one pixel larger. In float64
they stay below it up to 1e5 px from the origin and far beyond."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box of lattice pixels: columns x0 to x1 and rows y0 to y1, ends excluded."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width_px(self) -> int:
        return self.x1 - self.x0

    @property
    def height_px(self) -> int:
        return self.y1 - self.y0


@dataclass(frozen=True, slots=True)
class GridGeometry:
    """The session's lattice of camera pixels and the grid of cells over it.

    Lattice pixel (X, Y) covers [X mpp, (X+1) mpp) by [Y mpp, (Y+1) mpp) of the stage, um. Cell
    (i, j) covers [i w, (i+1) w) by [j h, (j+1) h) with w = tile_w x target_mpp and h likewise.

    Attributes:
        mpp: Pixel size of the camera, um/px.
        tile_h: Rows of a model tile.
        tile_w: Columns of a model tile.
        target_mpp: Pixel size of a model tile, um/px.
        allow_enlargement: Accept a camera that is too coarse, as the user asked.

    Raises:
        PixelSizeError: A pixel size is impossible, or the camera is too coarse for the model.
    """

    mpp: float
    tile_h: int
    tile_w: int
    target_mpp: float
    allow_enlargement: bool = False

    def __post_init__(self) -> None:
        check_mpp(self.mpp)
        check_mpp(self.target_mpp, "The model's pixel size")
        too_coarse = self.mpp > MAX_ENLARGEMENT * self.target_mpp
        if too_coarse and not self.allow_enlargement:
            raise PixelSizeError(
                f"The camera is at {self.mpp:g} µm/px and the model wants {self.target_mpp:g}, "
                f"more than {MAX_ENLARGEMENT:g} times finer; use a stronger objective, or a "
                f"bundle made for about {self.mpp:g} µm/px. Enlarged pixels lack the detail that "
                "the model learnt to see; --allow-enlargement goes on all the same.",
                mpp=self.mpp,
                target_mpp=self.target_mpp,
            )

    @property
    def scale(self) -> float:
        """Camera pixels per model pixel; above 1 where tiles are shrunk."""
        return self.target_mpp / self.mpp

    @property
    def cell_w_px(self) -> float:
        """Width of a cell, camera pixels; seldom a whole number."""
        return self.tile_w * self.target_mpp / self.mpp

    @property
    def cell_h_px(self) -> float:
        """Height of a cell, camera pixels; seldom a whole number."""
        return self.tile_h * self.target_mpp / self.mpp

    @property
    def cell_w_um(self) -> float:
        return self.tile_w * self.target_mpp

    @property
    def cell_h_um(self) -> float:
        return self.tile_h * self.target_mpp

    def field_corner(
        self, width_px: int, height_px: int, x_um: float, y_um: float
    ) -> tuple[int, int]:
        """Return the lattice pixel (X, Y) nearest to a field's top left corner.

        Args:
            width_px: Columns of the field.
            height_px: Rows of the field.
            x_um: Stage x of the field's centre, um.
            y_um: Stage y of the field's centre, um.
        """
        return (
            math.floor(x_um / self.mpp - width_px / 2 + 0.5 + EDGE_EPSILON_PX),
            math.floor(y_um / self.mpp - height_px / 2 + 0.5 + EDGE_EPSILON_PX),
        )

    def box(self, i: int, j: int) -> Box:
        """Return the smallest box of whole camera pixels that covers cell (i, j)."""
        x0, x1 = _covering(i, self.cell_w_px)
        y0, y1 = _covering(j, self.cell_h_px)
        return Box(x0, y0, x1, y1)

    def inside(self, area: Region) -> Box:
        """Return the whole camera pixels that lie inside an area of the stage."""
        return Box(
            math.ceil(area.x_um / self.mpp - EDGE_EPSILON_PX),
            math.ceil(area.y_um / self.mpp - EDGE_EPSILON_PX),
            math.floor((area.x_um + area.width_um) / self.mpp + EDGE_EPSILON_PX),
            math.floor((area.y_um + area.height_um) / self.mpp + EDGE_EPSILON_PX),
        )

    def phase(self, i: int, j: int) -> tuple[float, float]:
        """Return the offset (x, y) of the cell's own corner in its box, pixels, 0 to 1."""
        box = self.box(i, j)
        return i * self.cell_w_px - box.x0, j * self.cell_h_px - box.y0

    def cells_touching(self, x0: int, y0: int, width_px: int, height_px: int) -> list[Cell]:
        """Return the cells whose boxes share pixels with a rectangle of the lattice.

        Row by row, left to right. Where a cell is no whole number of pixels, the boxes of
        neighbours share a column or row, and both are returned.

        Raises:
            FrameError: There are more than a field may be cut into.
        """
        columns = _touching(x0, x0 + width_px, self.cell_w_px)
        rows = _touching(y0, y0 + height_px, self.cell_h_px)
        cells = len(columns) * len(rows)
        if (
            cells > MAX_FIELD_CELLS
            or cells * self.tile_h * self.tile_w * RGB > MAX_FIELD_TILE_BYTES
        ):
            raise FrameError(
                f"A field of {width_px} x {height_px} px at {self.mpp:g} µm/px touches "
                f"{len(columns)} x {len(rows)} cells of {self.tile_w} x {self.tile_h} px at "
                f"{self.target_mpp:g}; send smaller fields, or use a bundle of larger cells.",
                reason="TOO_MANY_CELLS",
                cells=cells,
            )
        return [(i, j) for j in rows for i in columns]


def _covering(index: int, size_px: float) -> tuple[int, int]:
    return (
        math.floor(index * size_px + EDGE_EPSILON_PX),
        math.ceil((index + 1) * size_px - EDGE_EPSILON_PX),
    )


def _touching(start: int, end: int, size_px: float) -> range:
    first, last = math.floor(start / size_px) - 1, math.floor(end / size_px) + 1
    while _covering(first, size_px)[1] <= start:
        first += 1
    while _covering(last, size_px)[0] >= end:
        last -= 1
    return range(first, last + 1)
