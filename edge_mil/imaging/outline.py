"""Where the tissue is, as rectangles: rows of cells that lie side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edge_mil.imaging.grid import Cell, GridGeometry
from edge_mil.types import Region

_WHOLE_CELL = 1e-6


def tissue_outline(cells: Iterable[Cell], geometry: GridGeometry) -> list[Region]:
    """Return the rectangles that cover these cells exactly: one for each run of a row.

    Args:
        cells: Tissue cells (i, j) in any order.
        geometry: The grid that they belong to.
    """
    runs: list[list[int]] = []
    for j, i in sorted({(j, i) for i, j in cells}):
        if runs and runs[-1][0] == j and runs[-1][2] == i:
            runs[-1][2] += 1
        else:
            runs.append([j, i, i + 1])
    width, height = geometry.cell_w_um, geometry.cell_h_um
    return [
        Region(first * width, j * height, (end - first) * width, height) for j, first, end in runs
    ]


def cells_inside(outline: Sequence[Region], geometry: GridGeometry) -> set[Cell]:
    """Return the cells whose centre lies in one of the rectangles.

    Of `tissue_outline`'s rectangles these are the cells that it was given.
    """
    width, height = geometry.cell_w_um, geometry.cell_h_um
    return {
        (i, j)
        for region in outline
        for j in _centres(region.y_um, region.height_um, height)
        for i in _centres(region.x_um, region.width_um, width)
    }


def _centres(start_um: float, length_um: float, cell_um: float) -> range:
    first, end = start_um / cell_um - 0.5, (start_um + length_um) / cell_um - 0.5
    return range(math.ceil(first - _WHOLE_CELL), math.ceil(end - _WHOLE_CELL))
