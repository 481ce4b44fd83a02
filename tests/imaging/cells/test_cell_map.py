"""The cell map: any fields, in any order, give the cells of the whole picture, each once."""

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


def cell_map_at(mpp: float, outline: Iterable[Region] = ()) -> CellMap:
    return CellMap(
        GridGeometry(mpp, TILE, TILE, 0.5),
        background=(GLASS,) * 3,
        min_difference=25,
        min_share=0.05,
        outline=tuple(outline),
    )


def show(
    cell_map: CellMap, rectangle: Rectangle, sequence: int, slide: UInt8Array = SLIDE
) -> CellUpdate:
    """Commit a rectangle (x, y, width, height) of the slide."""
    x, y, width, height = rectangle
    mpp = cell_map.geometry.mpp
    pixels = slide[y : y + height, x : x + width]
    update = cell_map.plan(pixels, (x + width / 2) * mpp, (y + height / 2) * mpp, sequence)
    cell_map.commit(update)
    return update


def run(
    cell_map: CellMap, fields: Iterable[Rectangle]
) -> tuple[dict[Cell, UInt8Array], list[CellUpdate]]:
    tiles: dict[Cell, UInt8Array] = {}
    updates = []
    for number, rectangle in enumerate(fields, start=1):
        update = show(cell_map, rectangle, number)
        for cell, tile in zip(update.cells, update.tiles, strict=True):
            assert cell not in tiles, "a cell was counted twice"
            tiles[cell] = tile
        updates.append(update)
    return tiles, updates


def whole(mpp: float) -> dict[Cell, UInt8Array]:
    return run(cell_map_at(mpp), [(0, 0, WIDTH, HEIGHT)])[0]


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


@settings(max_examples=60)
@given(MPPS, COVERINGS)
def test_fields_in_any_order_give_the_tiles_of_the_whole_to_the_bit(
    mpp: float, fields: list[Rectangle]
) -> None:
    cell_map = cell_map_at(mpp)
    tiles, updates = run(cell_map, fields)
    assert same(tiles, whole(mpp))
    assert cell_map.held == len(tiles)
    for update in updates:
        shows = update.measures[0].value >= update.measures[0].threshold
        assert (update.verdict is Verdict.BLANK) == (not shows)
        if update.verdict is Verdict.DUPLICATE:
            assert (update.cells, update.glass, update.parts) == ((), (), ())
        for cell in (*update.cells, *update.glass):
            assert update.sources[cell][-1] == update.sequence


@settings(max_examples=40)
@given(MPPS, COVERINGS, st.data())
def test_a_restored_map_is_at_the_same_state(
    mpp: float, fields: list[Rectangle], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(fields)))
    first, again = cell_map_at(mpp), cell_map_at(mpp)
    held: dict[Cell, tuple[bool, tuple[int, ...]]] = {}
    parts: list[tuple[int, CellPart]] = []
    for number, rectangle in enumerate(fields[:cut], start=1):
        update = show(first, rectangle, number)
        parts += [(number, part) for part in update.parts]
        held |= {cell: (True, update.sources[cell]) for cell in update.cells}
        held |= {cell: (False, update.sources[cell]) for cell in update.glass}
    for cell, (tissue, sources) in held.items():
        again.restore_cell(*cell, tissue=tissue, sources=sources)
    for number, part in parts:
        if (part.i, part.j) not in held:
            again.restore_part(number, part)
    assert again.cells() == first.cells()
    assert again.pending == first.pending
    assert again.coverage() == first.coverage()
    for number, rectangle in enumerate(fields[cut:], start=cut + 1):
        left, right = show(first, rectangle, number), show(again, rectangle, number)
        assert (left.verdict, left.cells, left.glass) == (right.verdict, right.cells, right.glass)
        assert left.sources == right.sources
        assert left.measures == right.measures
        assert np.array_equal(left.tiles, right.tiles)
    assert again.coverage() == first.coverage()


@settings(max_examples=40)
@given(MPPS, COVERINGS, st.data())
def test_removing_a_field_takes_every_cell_that_it_gave_pixels_to(
    mpp: float, fields: list[Rectangle], data: st.DataObject
) -> None:
    cell_map = cell_map_at(mpp)
    _, updates = run(cell_map, fields)
    number = data.draw(st.integers(1, len(fields)))
    sources = {cell: given for update in updates for cell, given in update.sources.items()}
    tissue = set(cell_map.cells())
    left, again = cell_map.remove(number)
    wanted = {cell for cell in tissue if number in sources[cell]}
    assert set(left) == wanted
    assert set(left) <= set(again)
    assert set(cell_map.cells()) == tissue - wanted
    assert cell_map.remove(number) == ((), ())
    # Seen again, the slide is whole again: what was lost comes back, and nothing twice.
    tiles = {}
    for offset, rectangle in enumerate(fields):
        update = show(cell_map, rectangle, 1000 + offset)
        tiles |= dict(zip(update.cells, update.tiles, strict=True))
    assert set(tiles) == wanted
    assert set(cell_map.cells()) == tissue
    assert all(np.array_equal(tiles[cell], whole(mpp)[cell]) for cell in tiles)


def test_a_part_of_a_removed_field_leaves_the_parts_of_others() -> None:
    cell_map = cell_map_at(0.5)
    slide = np.full((16, 48, 3), 100, np.uint8)
    show(cell_map, (0, 0, 6, 16), 1, slide)
    show(cell_map, (5, 0, 6, 16), 2, slide)
    assert cell_map.remove(1) == ((), ((0, 0),))
    update = show(cell_map, (0, 0, 6, 16), 3, slide)
    assert update.verdict is Verdict.ACCEPTED
    assert not update.cells
    update = show(cell_map, (10, 0, 6, 16), 4, slide)
    assert update.cells == ((0, 0),)
    assert update.sources[0, 0] == (2, 3, 4)


def test_the_first_writer_of_a_pixel_stays() -> None:
    cell_map = cell_map_at(0.5)
    for number, (x, level) in enumerate(((0, 10), (5, 20), (4, 30)), start=1):
        update = show(cell_map, (x, 0, 12, 16), number, np.full((16, 32, 3), level, np.uint8))
        if update.cells:
            break
    assert update.sequence == 2
    assert update.tiles[0][0, :, 0].tolist() == [10] * 12 + [20] * 4


def test_hovering_is_duplicate_and_counts_once() -> None:
    cell_map = cell_map_at(0.499)
    place = (20, 20, 60, 50)
    first = show(cell_map, place, 1)
    assert first.verdict is Verdict.ACCEPTED
    for number in range(2, 40):
        update = show(cell_map, place, number)
        assert update.verdict is Verdict.DUPLICATE
        assert update.held == len(first.cells)
    assert cell_map.held == len(first.cells)


def test_a_part_that_drifts_is_not_stored_over_and_over() -> None:
    cell_map = cell_map_at(0.5)
    slide = np.full((16, 64, 3), 100, np.uint8)
    stored = 0
    for number in range(1, 13):
        update = show(cell_map, (0, 0, number, 16), number, slide)
        stored += sum(part.pixels.size for part in update.parts)
    assert stored == 12 * 16 * 3


def test_blank_fields_still_give_their_pixels() -> None:
    slide = np.full((16, 32, 3), GLASS, np.uint8)
    slide[:, 8:16] = 90
    cell_map = cell_map_at(0.5)
    blank = show(cell_map, (0, 0, 8, 16), 1, slide)
    assert blank.verdict is Verdict.BLANK
    assert [part.pixels.shape for part in blank.parts] == [(16, 8, 3)]
    rest = show(cell_map, (8, 0, 8, 16), 2, slide)
    assert rest.verdict is Verdict.ACCEPTED
    assert rest.cells == ((0, 0),)
    assert rest.sources[0, 0] == (1, 2)
    assert np.array_equal(rest.tiles[0], slide[:, :16])


def test_a_blank_field_that_completes_a_tissue_cell_is_accepted() -> None:
    slide = np.full((16, 32, 3), GLASS, np.uint8)
    slide[:, 8:16] = 90
    cell_map = cell_map_at(0.5)
    show(cell_map, (8, 0, 8, 16), 1, slide)
    assert cell_map.coverage() == 0
    update = show(cell_map, (0, 0, 8, 16), 2, slide)
    assert update.verdict is Verdict.ACCEPTED
    assert update.cells == ((0, 0),)
    assert cell_map.coverage() == 1


def test_glass_is_blank_again_when_seen_again() -> None:
    cell_map = cell_map_at(0.5)
    glass = np.full((48, 48, 3), GLASS, np.uint8)
    for number in (1, 2):
        update = show(cell_map, (0, 0, 40, 40), number, glass)
        assert update.verdict is Verdict.BLANK
    assert not update.glass
    assert not update.parts
    assert cell_map.coverage() == 0


def test_planning_changes_nothing() -> None:
    cell_map = cell_map_at(0.499)
    pixels = SLIDE[:60, :70]
    for _ in range(2):
        update = cell_map.plan(pixels, 35 * 0.499, 30 * 0.499, 1)
        assert update.cells
        assert update.parts
    assert cell_map.held == cell_map.pending == 0


def test_coverage_counts_the_outline_but_not_its_glass() -> None:
    slide = np.full((16, 64, 3), GLASS, np.uint8)
    slide[:, :40] = 90
    geometry = GridGeometry(0.5, TILE, TILE, 0.5)
    outline = tissue_outline([(0, 0), (1, 0), (2, 0), (3, 0)], geometry)
    assert outline == [Region(0, 0, 32, 8)]
    cell_map = cell_map_at(0.5, outline)
    shown = []
    for number, x in enumerate((0, 16, 32, 48)):
        show(cell_map, (x, 0, 16, 16), number, slide)
        shown.append(cell_map.coverage())
    assert shown == [0.25, 0.5, 0.75, 1]
    cell_map.remove(0)
    assert cell_map.coverage() == pytest.approx(2 / 3)


def test_cells_left_of_and_above_the_origin_count_too() -> None:
    cell_map = cell_map_at(0.5)
    pixels = np.full((40, 40, 3), 90, np.uint8)
    update = cell_map.plan(pixels, -50, -60, 1)
    left, top = -100 - 20, -120 - 20
    wanted = {
        (i, j)
        for i in range(-20, 5)
        for j in range(-20, 5)
        if left <= i * 16 <= left + 24 and top <= j * 16 <= top + 24
    }
    assert set(update.cells) == wanted


def test_a_share_of_nothing_takes_every_cell() -> None:
    geometry = GridGeometry(0.5, TILE, TILE, 0.5)
    cell_map = CellMap(geometry, background=(GLASS,) * 3, min_difference=25, min_share=0)
    update = show(cell_map, (0, 0, 32, 32), 1, np.full((32, 32, 3), GLASS, np.uint8))
    assert update.verdict is Verdict.ACCEPTED
    assert len(update.cells) == 4
