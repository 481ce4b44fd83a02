"""The tissue outline as rectangles: runs of tissue cells that lie side by side in a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_mil.errors import UsageError
from edge_mil.imaging.grid import Cell, GridGeometry
from edge_mil.limits import MAX_OUTLINE_CELLS, MAX_OUTLINE_SPAN
from edge_mil.types import Region

OtherT = TypeVar("OtherT")

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


def cells_inside(outline: Sequence[Region], geometry: GridGeometry) -> OutlineCells:
    """Return the cells whose centre lies in one of the rectangles.

    Of `tissue_outline`'s rectangles these are the cells that it was given.

    Raises:
        UsageError: They span more cells than a slide has.
    """
    return squares_inside(outline, geometry.cell_w_um, geometry.cell_h_um, CELL_TOLERANCE)


def squares_inside(
    outline: Sequence[Region], width_um: float, height_um: float, tolerance: float
) -> OutlineCells:
    """Return the squares of a regular grid whose centres lie in one of the rectangles.

    Rectangles that overlap cost no more than others: each changes four corners of a grid of
    differences, which is summed once.

    Args:
        outline: The rectangles, stage um; checked (`edge_mil.limits.check_region`).
        width_um: Width of a square, um; square (i, j) begins at (i width_um, j height_um).
        height_um: Its height, um.
        tolerance: Slack of the rectangles' edges, in squares.

    Raises:
        UsageError: They span more than MAX_OUTLINE_SPAN squares, or hold more than
            MAX_OUTLINE_CELLS.
    """
    spans = [
        (across, down)
        for region in outline
        if (across := centres_inside(region.x_um, region.width_um, width_um, tolerance))
        and (down := centres_inside(region.y_um, region.height_um, height_um, tolerance))
    ]
    if not spans:
        return OutlineCells(0, 0, np.zeros((0, 0), dtype=np.bool_), 0)
    left, right = min(c.start for c, _ in spans), max(c.stop for c, _ in spans)
    top, bottom = min(r.start for _, r in spans), max(r.stop for _, r in spans)
    columns, rows = right - left, bottom - top
    if columns * rows > MAX_OUTLINE_SPAN:
        raise _too_large(columns, rows, width_um, height_um, columns * rows)
    corners = np.array(
        [(r.start - top, r.stop - top, c.start - left, c.stop - left) for c, r in spans]
    )
    change = np.zeros((rows + 1, columns + 1), dtype=np.int32)
    for rows_at, columns_at, sign in ((0, 2, 1), (0, 3, -1), (1, 2, -1), (1, 3, 1)):
        np.add.at(change, (corners[:, rows_at], corners[:, columns_at]), sign)
    covered = change.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    count = int(covered.sum())
    if count > MAX_OUTLINE_CELLS:
        raise _too_large(columns, rows, width_um, height_um, count)
    return OutlineCells(left, top, covered, count)


def _too_large(
    columns: int, rows: int, width_um: float, height_um: float, count: int
) -> UsageError:
    return UsageError(
        f"The tissue outline spans {columns * width_um / 1000:.4g} x "
        f"{rows * height_um / 1000:.4g} mm and holds {count} cells of this bundle; at most "
        f"{MAX_OUTLINE_CELLS} are taken, of a span of {MAX_OUTLINE_SPAN}. Send the outline of one "
        "slide, in µm, or none.",
        field="tissue",
    )


@dataclass(frozen=True, slots=True, eq=False)
class OutlineCells(Set[Cell]):
    """Cells inside of a tissue outline, one byte for each that the outline spans.

    Attributes:
        left: Column of covered[:, 0].
        top: Row of covered[0].
        covered: Whether cell (left + i, top + j) is inside, bool, shape (rows, columns), [j, i].
        count: How many are inside.
    """

    left: int
    top: int
    covered: npt.NDArray[np.bool_]
    count: int

    @classmethod
    def _from_iterable(cls, it: Iterable[OtherT]) -> frozenset[OtherT]:
        """Return what `&`, `|`, `-` and `^` make: Set's own would call the class with the cells."""
        return frozenset(it)

    def __contains__(self, cell: object) -> bool:
        if not isinstance(cell, tuple):
            return False
        i, j = cell[0] - self.left, cell[1] - self.top
        rows, columns = self.covered.shape
        return 0 <= i < columns and 0 <= j < rows and bool(self.covered[j, i])

    def __iter__(self) -> Iterator[Cell]:
        for j, i in np.argwhere(self.covered).tolist():
            yield self.left + i, self.top + j

    def __len__(self) -> int:
        return self.count


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
