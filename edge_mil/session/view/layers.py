"""Lay numbers of instances out as a grid: sharpness, coverage, influence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_mil.errors import SessionStateError
from edge_mil.limits import MAX_MAP_CELLS
from edge_mil.types import CellLayer, Float32Array, Region


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Numbers on a grid.

    Attributes:
        origin_x_um: Stage x of the top left corner of values[0, 0].
        origin_y_um: Stage y of the same.
        um_per_column: Width of a cell on the slide.
        um_per_row: Height of a cell on the slide.
        values: float32, shape (rows, columns); NaN where there is no number.
    """

    origin_x_um: float
    origin_y_um: float
    um_per_column: float
    um_per_row: float
    values: Float32Array


def to_grid(values: Mapping[str, float], extent: Callable[[str], Region | None]) -> Grid:
    """Return the numbers of instances on their grid.

    Args:
        values: Instance key -> number.
        extent: Returns where an instance lies, stage µm.

    Raises:
        SessionStateError: The instances have no positions, or lie too far apart.
    """
    if not values:
        return Grid(0.0, 0.0, 0.0, 0.0, np.empty((0, 0), dtype=np.float32))
    regions = [region for key in values if (region := extent(key)) is not None]
    if len(regions) < len(values):
        raise SessionStateError(
            "The fields of this session have no positions, so there is no map of them; ask for "
            "its top fields instead."
        )
    width, height = regions[0].width_um, regions[0].height_um
    left, top = min(r.x_um for r in regions), min(r.y_um for r in regions)
    columns = [round((r.x_um - left) / width) for r in regions]
    rows = [round((r.y_um - top) / height) for r in regions]
    if (max(rows) + 1) * (max(columns) + 1) > MAX_MAP_CELLS:
        raise SessionStateError(
            f"The fields lie {max(columns)} columns and {max(rows)} rows of cells apart, too far "
            "for a map; remove the field whose position is wrong."
        )
    grid = np.full((max(rows) + 1, max(columns) + 1), np.nan, dtype=np.float32)
    grid[rows, columns] = list(values.values())
    return Grid(left, top, width, height, grid)


def grid_layer(
    name: str, values: Mapping[str, float], extent: Callable[[str], Region | None]
) -> CellLayer:
    """Return the numbers of instances as a layer; arguments and errors as for `to_grid`."""
    grid = to_grid(values, extent)
    return CellLayer(
        name,
        grid.origin_x_um,
        grid.origin_y_um,
        grid.um_per_column,
        grid.um_per_row,
        grid.values,
    )
