"""Fields of which the camera did not see every pixel, and a slide that ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.imaging import Cell, CellMap, CellPart, GridGeometry
from edge_mil.types import Region, UInt8Array, Verdict

WIDTH, HEIGHT, TILE, JUNK = 90, 70, 16, 7
SLIDE = np.random.default_rng(0).integers(60, 180, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def cell_map_at(mpp: float, area: Region | None = None) -> CellMap:
    return CellMap(
        GridGeometry(mpp, TILE, TILE, 0.5),
        background=(240.0,) * 3,
        min_difference=25,
        min_share=0.05,
        area=area,
    )


def whole(mpp: float) -> dict[Cell, UInt8Array]:
    cell_map = cell_map_at(mpp)
    update = cell_map.plan(SLIDE, WIDTH / 2 * mpp, HEIGHT / 2 * mpp, 1)
    return dict(zip(update.cells, update.tiles, strict=True))


def same(found: dict[Cell, UInt8Array], wanted: dict[Cell, UInt8Array]) -> bool:
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[cell], wanted[cell]) for cell in wanted
    )


def strips(degrees: int, count: int) -> list[np.ndarray]:
    """Return masks that share the slide out in slanted strips."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slanted = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    share = (slanted - slanted.min()) / np.ptp(slanted) * count
    return [(share >= n) & (share <= n + 1) for n in range(count)]


@settings(max_examples=25)
@given(
    mpp=st.sampled_from([0.5, 0.3, 0.499, 0.6]),
    degrees=st.integers(0, 179),
    count=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
def test_slanted_fields_join_to_the_cells_of_the_whole(
    mpp: float, degrees: int, count: int, order: object
) -> None:
    cell_map, found = cell_map_at(mpp), {}
    masks = strips(degrees, count)
    order.shuffle(masks)  # type: ignore[attr-defined]
    for sequence, mask in enumerate(masks, start=1):
        pixels = np.where(mask[:, :, None], SLIDE, JUNK).astype(np.uint8)
        update = cell_map.plan(pixels, WIDTH / 2 * mpp, HEIGHT / 2 * mpp, sequence, mask=mask)
        cell_map.commit(update)
        found |= dict(zip(update.cells, update.tiles, strict=True))
    assert same(found, whole(mpp))


def test_pixels_that_the_camera_did_not_see_are_ignored() -> None:
    cell_map = cell_map_at(0.5)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    tissue = np.full((HEIGHT, WIDTH, 3), JUNK, np.uint8)
    update = cell_map.plan(tissue, WIDTH / 4, HEIGHT / 4, 1, mask=mask)
    assert (update.verdict, update.cells, update.parts) == (Verdict.BLANK, (), ())
    mask[3, 5] = True
    update = cell_map.plan(tissue, WIDTH / 4, HEIGHT / 4, 1, mask=mask)
    (part,) = update.parts
    assert (part.x, part.y, part.pixels.shape) == (5, 3, (1, 1, 3))
    assert update.verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("removed", [False, True])
def test_parts_come_back_from_their_bytes(removed: bool) -> None:
    first, second, third = strips(30, 3)
    kept, again = cell_map_at(0.3), cell_map_at(0.3)
    records = []
    for sequence, mask in enumerate((first, third), start=1):
        update = kept.plan(SLIDE, WIDTH * 0.15, HEIGHT * 0.15, sequence, mask=mask)
        kept.commit(update)
        for cell in update.cells:
            again.restore_cell(*cell, True, update.sources[cell])
        records += [(sequence, part) for part in update.parts]
    for sequence, part in records:
        box = (part.x, part.y, part.pixels.shape[1], part.pixels.shape[0])
        restored = CellPart.from_bytes((part.i, part.j), box, part.to_bytes())
        assert np.array_equal(restored.pixels, part.pixels)
        assert (restored.mask is None) == (part.mask is None)
        again.restore_part(sequence, restored)
    if removed:
        kept.remove(1)
        again.remove(1)
    assert kept.coverage() == again.coverage()
    updates = [
        cell_map.plan(SLIDE, WIDTH * 0.15, HEIGHT * 0.15, 3, mask=second)
        for cell_map in (kept, again)
    ]
    assert updates[0].cells == updates[1].cells
    assert np.array_equal(updates[0].tiles, updates[1].tiles)
    assert [part.to_bytes() for part in updates[0].parts] == [
        p.to_bytes() for p in updates[1].parts
    ]


@pytest.mark.parametrize("mpp", [0.5, 0.3, 0.499])
def test_cells_beyond_the_area_are_never_whole(mpp: float) -> None:
    margin = 25
    wide = np.full((HEIGHT + 2 * margin, WIDTH + 2 * margin, 3), JUNK, np.uint8)
    wide[margin:-margin, margin:-margin] = SLIDE
    cell_map = cell_map_at(mpp, Region(0.0, 0.0, WIDTH * mpp, HEIGHT * mpp))
    found: dict[Cell, UInt8Array] = {}
    sequence = 0
    for y in range(0, HEIGHT + 2 * margin - 40, 20):
        for x in range(0, WIDTH + 2 * margin - 40, 20):
            sequence += 1
            centre = (x - margin + 20) * mpp, (y - margin + 20) * mpp
            update = cell_map.plan(wide[y : y + 40, x : x + 40], *centre, sequence)
            cell_map.commit(update)
            found |= dict(zip(update.cells, update.tiles, strict=True))
    assert same(found, whole(mpp))
    beyond = cell_map.plan(wide[:40, :40], -1000.0, 20.0, 999)
    assert (beyond.verdict, beyond.parts) == (Verdict.BLANK, ())
    assert cell_map.plan(wide[:40, :40], 1000.0, 1000.0, 999).verdict is Verdict.BLANK
