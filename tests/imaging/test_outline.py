"""Outlines: cells to rectangles and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.errors import UsageError
from edge_mil.imaging import Cell, GridGeometry, cells_inside, tissue_outline
from edge_mil.types import Region

CELLS = st.sets(st.tuples(st.integers(-30, 900), st.integers(-30, 900)), max_size=60)


@given(CELLS, st.sampled_from([0.1, 0.2271, 0.499, 0.5]))
def test_an_outline_holds_the_cells_that_it_was_made_from(cells: set[Cell], mpp: float) -> None:
    geometry = GridGeometry(mpp, 128, 96, 0.5)
    assert cells_inside(tissue_outline(cells, geometry), geometry) == cells


@given(CELLS, CELLS)
def test_the_cells_of_an_outline_are_compared_as_sets_are(one: set[Cell], two: set[Cell]) -> None:
    geometry = GridGeometry(0.5, 128, 96, 0.5)
    inside = cells_inside(tissue_outline(one, geometry), geometry)
    assert inside ^ two == one ^ two
    assert inside - two == one - two
    assert inside & two == one & two
    assert inside | two == one | two


def test_cells_side_by_side_are_one_rectangle() -> None:
    geometry = GridGeometry(0.5, 100, 100, 0.5)
    found = tissue_outline([(3, 1), (1, 1), (2, 1), (5, 1), (1, 2)], geometry)
    assert [(r.x_um, r.y_um, r.width_um, r.height_um) for r in found] == [
        (50, 50, 150, 50),
        (250, 50, 50, 50),
        (50, 100, 50, 50),
    ]


def test_rectangles_that_lie_upon_each_other_cost_no_more_than_one() -> None:
    geometry = GridGeometry(0.5, 224, 224, 0.5)
    slide = Region(0, 0, 25_000, 75_000)
    once = cells_inside([slide], geometry)
    assert cells_inside([slide] * 25_000, geometry) == once
    assert len(once) == 223 * 670


@pytest.mark.parametrize(
    "outline",
    [
        [Region(-1e6, -1e6, 2e6, 2e6)],
        [Region(-1e6, 0, 100, 100), Region(1e6, 1e6, 100, 100)],
    ],
)
def test_an_outline_larger_than_a_slide_is_refused_before_any_cell_is_counted(
    outline: list[Region],
) -> None:
    with pytest.raises(UsageError, match="Send the outline of one slide"):
        cells_inside(outline, GridGeometry(0.5, 100, 100, 0.5))
