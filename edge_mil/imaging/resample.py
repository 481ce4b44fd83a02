"""One cell from camera pixels to the model's pixel size, anchored to its own place."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.errors import FrameError
from edge_mil.imaging.grid import GridGeometry
from edge_mil.types import UInt8Array

MAX_STEP = 1.25
"""Linear sampling every 1.25 pixels loses next to nothing; beyond that samples are averaged."""

_WHOLE_PX = 1e-6


def resample_cell(
    pixels: UInt8Array, geometry: GridGeometry, i: int, j: int, out: UInt8Array | None = None
) -> UInt8Array:
    """Bring the pixels of a cell's box to one model tile.

    Output pixel k samples exactly its own place on the slide, whatever part of a camera pixel the
    cell begins at. The result depends on the box's pixels alone, so it is the same to the bit
    whichever field, or fields, gave them.

    Args:
        pixels: The pixels of `geometry.box(i, j)`, RGB uint8, shape (box rows, box columns, 3).
        geometry: The session's grid.
        i: Column of the cell.
        j: Row of the cell.
        out: Where to put the tile, shape (tile_h, tile_w, 3), C-contiguous; None makes one.

    Returns:
        The tile, RGB uint8, shape (tile_h, tile_w, 3); never a view of `pixels`.

    Raises:
        FrameError: `pixels` has not the size of the box.

    Source:
        Copied when the pixel sizes agree, area averaging (OpenCV's INTER_AREA) when a cell is a
        whole number of pixels. Else linear sampling at m x m places per output pixel, at most
        1.25 pixels apart, and their mean: area averaging at any phase. cv2.resize alone would
        stretch the box over the tile and shift the cell by up to a pixel.
    """
    box, tile_h, tile_w = geometry.box(i, j), geometry.tile_h, geometry.tile_w
    if pixels.shape != (box.height_px, box.width_px, 3) or pixels.dtype != np.uint8:
        raise FrameError(
            f"Cell ({i}, {j}) covers {box.width_px} x {box.height_px} pixels and got an array "
            f"{pixels.dtype} {pixels.shape}."
        )
    if out is None:
        out = np.empty((tile_h, tile_w, 3), dtype=np.uint8)
    if _is_whole(geometry.cell_w_px) and _is_whole(geometry.cell_h_px):
        if pixels.shape == out.shape:
            out[...] = pixels
        elif geometry.scale > 1:
            cv2.resize(pixels, (tile_w, tile_h), dst=out, interpolation=cv2.INTER_AREA)
        else:
            cv2.resize(pixels, (tile_w, tile_h), dst=out, interpolation=cv2.INTER_LINEAR)
        return out
    (x, y), fold = geometry.phase(i, j), math.ceil(geometry.scale / MAX_STEP)
    step = geometry.scale / fold
    # Output pixel k has its centre at phase + (k + 0.5) steps, and the centre of camera pixel n
    # is at n + 0.5.
    matrix = np.array([[step, 0, x + step / 2 - 0.5], [0, step, y + step / 2 - 0.5]])
    # With a fourth channel OpenCV samples at twice the speed of three, to the same values.
    sampled = cv2.warpAffine(
        cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA),
        matrix,
        (tile_w * fold, tile_h * fold),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if fold > 1:
        sampled = cv2.resize(sampled, (tile_w, tile_h), interpolation=cv2.INTER_AREA)
    cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB, dst=out)
    return out


def _is_whole(size_px: float) -> bool:
    return abs(size_px - round(size_px)) < _WHOLE_PX
