"""Read the tissue cells, or the fields, of a whole slide: what a clean live pass must equal."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from edge_mil.bundle import TissueSpec
from edge_mil.cameras import ScanPlan, SlideFile, VirtualMicroscope
from edge_mil.imaging import (
    Cell,
    GridGeometry,
    SlotMap,
    SlotUpdate,
    TissueTest,
    resample_cell,
    tissue_outline,
)
from edge_mil.protocols import SlideImage
from edge_mil.types import Region, UInt8Array, Verdict

BLOCK_PX = 2048
"""Side of what is read at once, level-0 pixels: some tiles of a scanner, 17 MB."""

READ_AHEAD = 2
"""Blocks that are read while another is extracted."""

EXACT_OUTLINE_PX = 100_000_000
"""Slides up to this many pixels get their outline from level 0: a few seconds, and exact."""

MIN_OVERVIEW_CELL_PX = 16
"""Rows and columns that a cell of a larger slide has at least where its outline is found."""


def tissue_cells(
    slide: SlideImage,
    geometry: GridGeometry,
    tissue: TissueSpec,
    balanced: Callable[[UInt8Array], UInt8Array] | None = None,
) -> Iterator[tuple[Cell, UInt8Array]]:
    """Yield every complete tissue cell of level 0 and its tile, by the code of a live session.

    Args:
        slide: An open slide.
        geometry: The grid; its `mpp` is the slide's.
        tissue: The bundle's tissue test.
        balanced: Corrects the white balance of level 0's pixels; None: it is as it should be.

    Raises:
        SourceError: A part of the file is damaged.
    """
    test = tissue_test(tissue)
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="slide") as pool:
        waiting: collections.deque[Future[list[tuple[Cell, UInt8Array]]]] = collections.deque()
        try:
            for block in _blocks(slide, geometry):
                waiting.append(pool.submit(_read_block, slide, geometry, test, block, balanced))
                if len(waiting) > READ_AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def slot_fields(
    slide: SlideFile,
    field_px: tuple[int, int],
    tile_px: tuple[int, int],
    tissue: TissueSpec,
    balanced: Callable[[UInt8Array], UInt8Array] | None = None,
) -> Iterator[tuple[SlotUpdate, tuple[float, float]]]:
    """Yield the field of each slot that shows tissue, and its centre (x, y), um.

    Args:
        slide: An open slide.
        field_px: Width and height of a field, level-0 pixels.
        tile_px: Height and width of a model tile.
        tissue: The bundle's tissue test, applied to the whole field.
        balanced: As for `tissue_cells`.

    Raises:
        UsageError: The field is larger than the slide.
        SourceError: A part of the file is damaged.
    """
    microscope = VirtualMicroscope(slide, ScanPlan(overlap=0.0), field_px)
    slot_map = SlotMap(
        *tile_px,
        background=tissue.background,
        min_difference=tissue.min_difference,
        min_share=tissue.min_share,
        mpp=slide.mpp,
    )
    # The last column and row move back and may share a slot with the one before, so the best
    # field of a slot is known when all of its fields were read.
    slots = [
        slot_map.slot_of(*_centre(microscope, corner), *field_px) for corner in microscope.corners
    ]
    unread = collections.Counter(slots)
    best: dict[object, tuple[SlotUpdate, tuple[float, float]]] = {}
    for number, (slot, frame) in enumerate(zip(slots, microscope.frames(), strict=True)):
        if balanced is not None:
            frame = dataclasses.replace(frame, pixels=balanced(frame.pixels))
        update = slot_map.plan(frame, number)
        slot_map.commit(update)
        if update.verdict is Verdict.ACCEPTED:
            best[slot] = update, _centre(microscope, microscope.corners[number])
        unread[slot] -= 1
        if not unread[slot] and slot in best:
            yield best.pop(slot)


def slide_outline(slide: SlideImage, geometry: GridGeometry, tissue: TissueSpec) -> list[Region]:
    """Return the outline of a slide's tissue: rectangles of cells wholly inside of it, um.

    Up to 100 Mpx it is exact: the cells that `tissue_cells` yields. The tissue of a larger slide is
    found on the level of its pyramid in which a cell still has 16 pixels on a side.

    Args:
        slide: An open slide.
        geometry: The grid; its `mpp` is the slide's.
        tissue: The bundle's tissue test.

    Raises:
        SourceError: A part of the file is damaged.
    """
    if slide.width_px * slide.height_px <= EXACT_OUTLINE_PX:
        return tissue_outline((cell for cell, _ in tissue_cells(slide, geometry, tissue)), geometry)
    cell_px = min(geometry.cell_w_px, geometry.cell_h_px)
    long_side = max(slide.width_px, slide.height_px)
    image, zoom = slide.read_whole(math.ceil(long_side * MIN_OVERVIEW_CELL_PX / cell_px))
    mask, columns, rows = tissue_test(tissue).mask(image), *_counts(slide, geometry)
    # Shrink the mask to one pixel for each cell, whose level is then the share of tissue in it.
    width, height = (
        round(columns * geometry.cell_w_px / zoom),
        round(rows * geometry.cell_h_px / zoom),
    )
    if not (columns and rows):
        return []
    shares = cv2.resize(mask[:height, :width], (columns, rows), interpolation=cv2.INTER_AREA)
    cells = np.argwhere(shares >= tissue.min_share * 255)
    return tissue_outline(((int(i), int(j)) for j, i in cells), geometry)


def tissue_test(tissue: TissueSpec) -> TissueTest:
    """Return the tissue test with the bundle's numbers."""
    return TissueTest(tissue.background, tissue.min_difference, tissue.min_share)


def _counts(slide: SlideImage, geometry: GridGeometry) -> tuple[int, int]:
    """Return how many columns and rows of cells lie wholly inside of the slide."""
    columns = int(slide.width_px / geometry.cell_w_px) + 1
    rows = int(slide.height_px / geometry.cell_h_px) + 1
    while columns and geometry.box(columns - 1, 0).x1 > slide.width_px:
        columns -= 1
    while rows and geometry.box(0, rows - 1).y1 > slide.height_px:
        rows -= 1
    return columns, rows


def _blocks(slide: SlideImage, geometry: GridGeometry) -> Iterator[list[Cell]]:
    columns, rows = _counts(slide, geometry)
    wide = max(1, int(BLOCK_PX / geometry.cell_w_px))
    high = max(1, int(BLOCK_PX / geometry.cell_h_px))
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            yield [
                (i, j)
                for j in range(top, min(top + high, rows))
                for i in range(left, min(left + wide, columns))
            ]


def _read_block(
    slide: SlideImage,
    geometry: GridGeometry,
    test: TissueTest,
    cells: list[Cell],
    balanced: Callable[[UInt8Array], UInt8Array] | None = None,
) -> list[tuple[Cell, UInt8Array]]:
    # Read the rectangle of all cells at once.
    first, last = geometry.box(*cells[0]), geometry.box(*cells[-1])
    pixels = slide.read(first.x0, first.y0, last.x1 - first.x0, last.y1 - first.y0)
    if balanced is not None:
        pixels = balanced(pixels)
    # Cut each cell out of it, and keep those that show tissue.
    found = []
    for cell in cells:
        box = geometry.box(*cell)
        part = pixels[box.y0 - first.y0 : box.y1 - first.y0, box.x0 - first.x0 : box.x1 - first.x0]
        if test.is_surely_glass(part):
            continue
        tile = resample_cell(part, geometry, *cell)
        if test.share(tile) >= test.min_share:
            found.append((cell, tile))
    return found


def _centre(microscope: VirtualMicroscope, corner: tuple[int, int]) -> tuple[float, float]:
    """Return the centre (x, y), um, of a field whose top left pixel is `corner`."""
    x, y = corner
    return (
        (x + microscope.width_px / 2) * microscope.mpp,
        (y + microscope.height_px / 2) * microscope.mpp,
    )
