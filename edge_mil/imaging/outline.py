"""The tissue outline as rectangles: runs of tissue cells that lie side by side in a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edge_mil.imaging.grid import Cell, GridGeometry
from edge_mil.types import Region

CELL_TOLERANCE = 1e-6
"""Slack of a rectangle's edge, in cells: rounding errors only."""


def tissue_outline(cells: Iterable[Cell], geometry: GridGeometry) -> list[Region]:
    """Return the rectangles that cover cells exactly, stage um: one for each run of a row.

    Args:
        cells: Tissue cells (i, j) in any order.
        geometry: The grid of the cells.
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
        for j in centres_inside(region.y_um, region.height_um, height, CELL_TOLERANCE)
        for i in centres_inside(region.x_um, region.width_um, width, CELL_TOLERANCE)
    }


def centres_inside(start_um: float, length_um: float, step_um: float, tolerance: float) -> range:
    """Return the squares of a regular row whose centres lie in an interval.

    Args:
        start_um: Start of the interval, um.
        length_um: Its length, um.
        step_um: Side of a square, um; square k begins at k step_um.
        tolerance: Slack of the interval's ends, in squares.
    """
    first, end = start_um / step_um - 0.5, (start_um + length_um) / step_um - 0.5
    return range(math.ceil(first - tolerance), math.ceil(end - tolerance))
