"""Numbers of cells laid out as a grid: how sharply each was seen, how much of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edge_mil.errors import SessionStateError
from edge_mil.types import CellLayer, Float32Array, Region

MOST_CELLS = 16_000_000
"""Cells of a layer at most: positions come from outside, and one may be far away."""


def lay_out(
    name: str, values: Mapping[str, float], extent: Callable[[str], Region | None]
) -> CellLayer:
    """Return the places' numbers on their grid.

    Args:
        name: What they say.
        values: Place -> number.
        extent: Where a place lies, stage um.

    Raises:
        SessionStateError: The places have no positions, or lie too far apart.
    """
    if not values:
        empty: Float32Array = np.empty((0, 0), dtype=np.float32)
        return CellLayer(name, 0.0, 0.0, 0.0, 0.0, empty)
    regions = [extent(place) for place in values]
    where = [region for region in regions if region is not None]
    if len(where) < len(regions):
        raise SessionStateError(
            "The fields of this session have no positions, so there is no map of them."
        )
    width, height = where[0].width_um, where[0].height_um
    left, top = min(r.x_um for r in where), min(r.y_um for r in where)
    columns = [round((r.x_um - left) / width) for r in where]
    rows = [round((r.y_um - top) / height) for r in where]
    if (max(rows) + 1) * (max(columns) + 1) > MOST_CELLS:
        raise SessionStateError(
            f"The fields lie {max(columns)} columns and {max(rows)} rows of cells apart, too far "
            "for a map; remove the field whose position is wrong."
        )
    grid = np.full((max(rows) + 1, max(columns) + 1), np.nan, dtype=np.float32)
    grid[rows, columns] = list(values.values())
    return CellLayer(name, left, top, width, height, grid)
