"""The mosaic: any fields, in any order, give the cells of the whole picture, each once."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.imaging import Cell, CellMap, CellPart, CellUpdate, GridGeometry, tissue_outline
from edge_mil.types import Region, UInt8Array, Verdict

WIDTH, HEIGHT = 150, 110
TILE = 16
GLASS = 240

Rectangle = tuple[int, int, int, int]


def painted(seed: int = 0) -> UInt8Array:
    """Return a slide of tissue islands on glass, every pixel with its own noise."""
    rng = np.random.default_rng(seed)
    islands = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 9)
    pixels = np.full((HEIGHT, WIDTH, 3), float(GLASS))
    pixels[islands > 0] -= (30, 110, 40)
    pixels += rng.normal(0, 4, pixels.shape)
    return np.asarray(np.clip(pixels, 0, 255), dtype=np.uint8)


SLIDE = painted()
MPPS = st.sampled_from([0.5, 0.25, 0.3, 0.499, 0.6])


def mosaic_at(mpp: float, outline: Iterable[Region] = ()) -> CellMap:
    return CellMap(
        GridGeometry(mpp, TILE, TILE, 0.5),
        background=(GLASS,) * 3,
        min_difference=25,
        min_share=0.05,
        outline=tuple(outline),
    )


def show(
    mosaic: CellMap, rectangle: Rectangle, sequence: int, slide: UInt8Array = SLIDE
) -> CellUpdate:
    """Look at a rectangle (x, y, width, height) of the slide and take it."""
    x, y, width, height = rectangle
    mpp = mosaic.geometry.mpp
    pixels = slide[y : y + height, x : x + width]
    view = mosaic.look(pixels, (x + width / 2) * mpp, (y + height / 2) * mpp, sequence)
    mosaic.apply(view)
    return view


def run(
    mosaic: CellMap, fields: Iterable[Rectangle]
) -> tuple[dict[Cell, UInt8Array], list[CellUpdate]]:
    tiles: dict[Cell, UInt8Array] = {}
    views = []
    for number, rectangle in enumerate(fields, start=1):
        view = show(mosaic, rectangle, number)
        for cell, tile in zip(view.cells, view.tiles, strict=True):
            assert cell not in tiles, "a cell was counted twice"
            tiles[cell] = tile
        views.append(view)
    return tiles, views


def whole(mpp: float) -> dict[Cell, UInt8Array]:
    return run(mosaic_at(mpp), [(0, 0, WIDTH, HEIGHT)])[0]


def same(found: dict[Cell, UInt8Array], wanted: dict[Cell, UInt8Array]) -> bool:
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[cell], wanted[cell]) for cell in wanted
    )


def covering(width: int, height: int, strays: int, seed: int) -> list[Rectangle]:
    """Return fields of one size that cover the slide, with overlap and stray ones, shuffled."""
    rng = np.random.default_rng(seed)

    def starts(length: int, size: int) -> list[int]:
        found, at = [0], 0
        while at + size < length:
            at = min(length - size, at + int(rng.integers(max(1, size // 2), size + 1)))
            found.append(at)
        return found

    places = [(x, y) for y in starts(HEIGHT, height) for x in starts(WIDTH, width)]
    places += [
        (int(rng.integers(0, WIDTH - width + 1)), int(rng.integers(0, HEIGHT - height + 1)))
        for _ in range(strays)
    ]
    rng.shuffle(places)
    return [(int(x), int(y), width, height) for x, y in places]


COVERINGS = st.builds(
    covering, st.integers(9, 80), st.integers(9, 80), st.integers(0, 6), st.integers(0, 2**32)
)


@settings(max_examples=60, deadline=None)
@given(MPPS, COVERINGS)
def test_fields_in_any_order_give_the_tiles_of_the_whole_to_the_bit(
    mpp: float, fields: list[Rectangle]
) -> None:
    mosaic = mosaic_at(mpp)
    tiles, views = run(mosaic, fields)
    assert same(tiles, whole(mpp))
    assert mosaic.held == len(tiles)
    for view in views:
        shows = view.measures[0].value >= view.measures[0].threshold
        assert (view.verdict is Verdict.BLANK) == (not shows)
        if view.verdict is Verdict.DUPLICATE:
            assert (view.cells, view.glass, view.parts) == ((), (), ())
        for cell in (*view.cells, *view.glass):
            assert view.sources[cell][-1] == view.sequence


@settings(max_examples=40, deadline=None)
@given(MPPS, COVERINGS, st.data())
def test_a_restored_mosaic_is_at_the_same_state(
    mpp: float, fields: list[Rectangle], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(fields)))
    first, again = mosaic_at(mpp), mosaic_at(mpp)
    held: dict[Cell, tuple[bool, tuple[int, ...]]] = {}
    parts: list[tuple[int, CellPart]] = []
    for number, rectangle in enumerate(fields[:cut], start=1):
        view = show(first, rectangle, number)
        parts += [(number, part) for part in view.parts]
        held |= {cell: (True, view.sources[cell]) for cell in view.cells}
        held |= {cell: (False, view.sources[cell]) for cell in view.glass}
    for cell, (tissue, sources) in held.items():
        again.restore_cell(*cell, tissue=tissue, sources=sources)
    for number, part in parts:
        if (part.i, part.j) not in held:
            again.restore_part(number, part)
    assert again.cells() == first.cells()
    assert again.waiting == first.waiting
    assert again.coverage() == first.coverage()
    for number, rectangle in enumerate(fields[cut:], start=cut + 1):
        left, right = show(first, rectangle, number), show(again, rectangle, number)
        assert (left.verdict, left.cells, left.glass) == (right.verdict, right.cells, right.glass)
        assert left.sources == right.sources
        assert left.measures == right.measures
        assert np.array_equal(left.tiles, right.tiles)
    assert again.coverage() == first.coverage()


@settings(max_examples=40, deadline=None)
@given(MPPS, COVERINGS, st.data())
def test_removing_a_field_takes_every_cell_that_it_gave_pixels_to(
    mpp: float, fields: list[Rectangle], data: st.DataObject
) -> None:
    mosaic = mosaic_at(mpp)
    _, views = run(mosaic, fields)
    number = data.draw(st.integers(1, len(fields)))
    sources = {cell: given for view in views for cell, given in view.sources.items()}
    tissue = set(mosaic.cells())
    left, again = mosaic.remove(number)
    wanted = {cell for cell in tissue if number in sources[cell]}
    assert set(left) == wanted
    assert set(left) <= set(again)
    assert set(mosaic.cells()) == tissue - wanted
    assert mosaic.remove(number) == ((), ())
    # Seen again, the slide is whole again: what was lost comes back, and nothing twice.
    tiles = {}
    for offset, rectangle in enumerate(fields):
        view = show(mosaic, rectangle, 1000 + offset)
        tiles |= dict(zip(view.cells, view.tiles, strict=True))
    assert set(tiles) == wanted
    assert set(mosaic.cells()) == tissue
    assert all(np.array_equal(tiles[cell], whole(mpp)[cell]) for cell in tiles)


def test_a_part_of_a_removed_field_leaves_the_parts_of_others() -> None:
    mosaic = mosaic_at(0.5)
    slide = np.full((16, 48, 3), 100, np.uint8)
    show(mosaic, (0, 0, 6, 16), 1, slide)
    show(mosaic, (5, 0, 6, 16), 2, slide)
    assert mosaic.remove(1) == ((), ((0, 0),))
    view = show(mosaic, (0, 0, 6, 16), 3, slide)
    assert view.verdict is Verdict.ACCEPTED
    assert not view.cells
    view = show(mosaic, (10, 0, 6, 16), 4, slide)
    assert view.cells == ((0, 0),)
    assert view.sources[0, 0] == (2, 3, 4)


def test_the_first_writer_of_a_pixel_stays() -> None:
    mosaic = mosaic_at(0.5)
    for number, (x, level) in enumerate(((0, 10), (5, 20), (4, 30)), start=1):
        view = show(mosaic, (x, 0, 12, 16), number, np.full((16, 32, 3), level, np.uint8))
        if view.cells:
            break
    assert view.sequence == 2
    assert view.tiles[0][0, :, 0].tolist() == [10] * 12 + [20] * 4


def test_hovering_is_duplicate_and_counts_once() -> None:
    mosaic = mosaic_at(0.499)
    place = (20, 20, 60, 50)
    first = show(mosaic, place, 1)
    assert first.verdict is Verdict.ACCEPTED
    for number in range(2, 40):
        view = show(mosaic, place, number)
        assert view.verdict is Verdict.DUPLICATE
        assert view.held == len(first.cells)
    assert mosaic.held == len(first.cells)


def test_a_part_that_drifts_is_not_stored_over_and_over() -> None:
    mosaic = mosaic_at(0.5)
    slide = np.full((16, 64, 3), 100, np.uint8)
    stored = 0
    for number in range(1, 13):
        view = show(mosaic, (0, 0, number, 16), number, slide)
        stored += sum(part.pixels.size for part in view.parts)
    assert stored == 12 * 16 * 3


def test_blank_fields_still_give_their_pixels() -> None:
    slide = np.full((16, 32, 3), GLASS, np.uint8)
    slide[:, 8:16] = 90
    mosaic = mosaic_at(0.5)
    blank = show(mosaic, (0, 0, 8, 16), 1, slide)
    assert blank.verdict is Verdict.BLANK
    assert [part.pixels.shape for part in blank.parts] == [(16, 8, 3)]
    rest = show(mosaic, (8, 0, 8, 16), 2, slide)
    assert rest.verdict is Verdict.ACCEPTED
    assert rest.cells == ((0, 0),)
    assert rest.sources[0, 0] == (1, 2)
    assert np.array_equal(rest.tiles[0], slide[:, :16])


def test_a_blank_field_that_completes_a_tissue_cell_is_accepted() -> None:
    slide = np.full((16, 32, 3), GLASS, np.uint8)
    slide[:, 8:16] = 90
    mosaic = mosaic_at(0.5)
    show(mosaic, (8, 0, 8, 16), 1, slide)
    assert mosaic.coverage() == 0
    view = show(mosaic, (0, 0, 8, 16), 2, slide)
    assert view.verdict is Verdict.ACCEPTED
    assert view.cells == ((0, 0),)
    assert mosaic.coverage() == 1


def test_glass_is_blank_again_when_seen_again() -> None:
    mosaic = mosaic_at(0.5)
    glass = np.full((48, 48, 3), GLASS, np.uint8)
    for number in (1, 2):
        view = show(mosaic, (0, 0, 40, 40), number, glass)
        assert view.verdict is Verdict.BLANK
    assert not view.glass
    assert not view.parts
    assert mosaic.coverage() == 0


def test_looking_changes_nothing() -> None:
    mosaic = mosaic_at(0.499)
    pixels = SLIDE[:60, :70]
    for _ in range(2):
        view = mosaic.look(pixels, 35 * 0.499, 30 * 0.499, 1)
        assert view.cells
        assert view.parts
    assert mosaic.held == mosaic.waiting == 0


def test_coverage_counts_the_outline_but_not_its_glass() -> None:
    slide = np.full((16, 64, 3), GLASS, np.uint8)
    slide[:, :40] = 90
    geometry = GridGeometry(0.5, TILE, TILE, 0.5)
    outline = tissue_outline([(0, 0), (1, 0), (2, 0), (3, 0)], geometry)
    assert outline == [Region(0, 0, 32, 8)]
    mosaic = mosaic_at(0.5, outline)
    shown = []
    for number, x in enumerate((0, 16, 32, 48)):
        show(mosaic, (x, 0, 16, 16), number, slide)
        shown.append(mosaic.coverage())
    assert shown == [0.25, 0.5, 0.75, 1]
    mosaic.remove(0)
    assert mosaic.coverage() == pytest.approx(2 / 3)


def test_fields_left_of_and_above_the_origin_are_places_too() -> None:
    mosaic = mosaic_at(0.5)
    pixels = np.full((40, 40, 3), 90, np.uint8)
    view = mosaic.look(pixels, -50, -60, 1)
    left, top = -100 - 20, -120 - 20
    wanted = {
        (i, j)
        for i in range(-20, 5)
        for j in range(-20, 5)
        if left <= i * 16 <= left + 24 and top <= j * 16 <= top + 24
    }
    assert set(view.cells) == wanted


def test_a_share_of_nothing_takes_every_cell() -> None:
    geometry = GridGeometry(0.5, TILE, TILE, 0.5)
    mosaic = CellMap(geometry, background=(GLASS,) * 3, min_difference=25, min_share=0)
    view = show(mosaic, (0, 0, 32, 32), 1, np.full((32, 32, 3), GLASS, np.uint8))
    assert view.verdict is Verdict.ACCEPTED
    assert len(view.cells) == 4
