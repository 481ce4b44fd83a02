"""Outlines: cells to rectangles and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_mil.imaging import Cell, GridGeometry, cells_inside, tissue_outline

CELLS = st.sets(st.tuples(st.integers(-30, 3000), st.integers(-30, 3000)), max_size=60)


@given(CELLS, st.sampled_from([0.1, 0.2271, 0.499, 0.5]))
def test_an_outline_holds_the_cells_that_it_was_made_from(cells: set[Cell], mpp: float) -> None:
    geometry = GridGeometry(mpp, 128, 96, 0.5)
    assert cells_inside(tissue_outline(cells, geometry), geometry) == cells


def test_cells_side_by_side_are_one_rectangle() -> None:
    geometry = GridGeometry(0.5, 100, 100, 0.5)
    found = tissue_outline([(3, 1), (1, 1), (2, 1), (5, 1), (1, 2)], geometry)
    assert [(r.x_um, r.y_um, r.width_um, r.height_um) for r in found] == [
        (50, 50, 150, 50),
        (250, 50, 50, 50),
        (50, 100, 50, 50),
    ]
