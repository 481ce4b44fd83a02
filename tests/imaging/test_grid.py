"""The grid: corners of fields, boxes of cells, and the cells that a field touches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.errors import PixelSizeError
from edge_mil.imaging import GridGeometry

MPPS = st.sampled_from([0.1, 0.2271, 0.25, 0.4, 0.499, 0.5, 0.55, 0.7, 0.1 + 0.2])
GEOMETRIES = st.builds(
    GridGeometry,
    mpp=MPPS,
    tile_h=st.integers(8, 256),
    tile_w=st.integers(8, 256),
    target_mpp=st.just(0.5),
)


@given(GEOMETRIES, st.integers(-50, 5000), st.integers(-50, 5000))
def test_a_box_covers_its_cell_with_less_than_a_pixel_to_spare(
    geometry: GridGeometry, i: int, j: int
) -> None:
    box = geometry.box(i, j)
    x0, x1 = i * geometry.cell_w_px, (i + 1) * geometry.cell_w_px
    y0, y1 = j * geometry.cell_h_px, (j + 1) * geometry.cell_h_px
    slack = 1e-3
    assert x0 - 1 - slack < box.x0 <= x0 + slack
    assert x1 - slack <= box.x1 < x1 + 1 + slack
    assert y0 - 1 - slack < box.y0 <= y0 + slack
    assert y1 - slack <= box.y1 < y1 + 1 + slack


@given(
    GEOMETRIES,
    st.integers(0, 50_000),
    st.integers(0, 50_000),
    st.integers(1, 4000),
    st.integers(1, 4000),
)
def test_a_field_is_placed_back_where_its_centre_says(
    geometry: GridGeometry, x: int, y: int, width: int, height: int
) -> None:
    centre = (x + width / 2) * geometry.mpp, (y + height / 2) * geometry.mpp
    assert geometry.field_corner(width, height, *centre) == (x, y)


def test_a_field_between_two_pixels_goes_to_the_nearer() -> None:
    geometry = GridGeometry(0.5, 64, 64, 0.5)
    assert geometry.field_corner(100, 100, 25.2 + 5, 25.2 + 5) == (10, 10)
    assert geometry.field_corner(100, 100, 25.3 + 5, 25.2 + 5) == (11, 10)


@given(
    GEOMETRIES,
    st.integers(-300, 3000),
    st.integers(-300, 3000),
    st.integers(1, 600),
    st.integers(1, 600),
)
def test_the_cells_touched_are_those_whose_boxes_share_pixels(
    geometry: GridGeometry, x: int, y: int, width: int, height: int
) -> None:
    found = geometry.cells_touching(x, y, width, height)
    assert len(set(found)) == len(found)
    columns, rows = [i for i, _ in found], [j for _, j in found]
    around = [
        (i, j)
        for j in range(min(rows) - 2, max(rows) + 3)
        for i in range(min(columns) - 2, max(columns) + 3)
    ]
    for cell in around:
        box = geometry.box(*cell)
        shares = box.x0 < x + width and box.x1 > x and box.y0 < y + height and box.y1 > y
        assert shares == (cell in found)


def test_cells_of_a_whole_number_of_pixels_do_not_overlap() -> None:
    geometry = GridGeometry(0.25, 128, 64, 0.5)
    assert geometry.box(3, 5).x1 == geometry.box(4, 5).x0 == 4 * 128
    assert geometry.box(3, 5).y1 == geometry.box(3, 6).y0 == 6 * 256


def test_a_camera_too_coarse_for_the_model_is_refused_with_both_numbers() -> None:
    GridGeometry(0.75, 64, 64, 0.5)
    with pytest.raises(PixelSizeError, match=r"0\.76.*0\.5.*stronger objective"):
        GridGeometry(0.76, 64, 64, 0.5)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf"), 1e308])
def test_an_impossible_pixel_size_is_refused(mpp: float) -> None:
    with pytest.raises(PixelSizeError):
        GridGeometry(mpp, 64, 64, 0.5)
