"""Resample one cell from camera pixels to the model's pixel size, anchored to the grid."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.errors import FrameError
from edge_mil.imaging.grid import GridGeometry
from edge_mil.types import UInt8Array

MAX_STEP_PX = 1.25
"""Largest distance of linear samples that loses next to nothing; beyond it samples are averaged."""

WHOLE_TOLERANCE_PX = 1e-6
"""Distance from a whole number that is a rounding error."""


def resample_cell(
    pixels: UInt8Array, geometry: GridGeometry, i: int, j: int, out: UInt8Array | None = None
) -> UInt8Array:
    """Resample the pixels of a cell's box to one model tile.

    Output pixel k samples exactly its own square of the slide, at whatever part of a camera pixel
    the cell begins. The result depends on the box's pixels alone, so it is the same to the bit
    whichever field, or fields, gave them.

    Args:
        pixels: The pixels of `geometry.box(i, j)`, RGB uint8, shape (box rows, box columns, 3).
        geometry: The session's grid.
        i: Column of the cell.
        j: Row of the cell.
        out: Receives the tile, uint8, shape (tile_h, tile_w, 3), C-contiguous; None makes one.

    Returns:
        The tile, RGB uint8, shape (tile_h, tile_w, 3); never a view of `pixels`.

    Raises:
        FrameError: `pixels` has another size than the box.

    Source:
        A copy where the pixel sizes agree, and area averaging where a cell is a whole number of
        pixels, as the OpenCV manual advises for shrinking (INTER_AREA). Else the same average at
        any phase: m x m linear samples per output pixel, at most 1.25 pixels apart, and their
        mean. cv2.resize alone would stretch the box over the tile and shift the cell by up to a
        pixel.
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
    # `supersampling` samples per output pixel and axis, `step` camera pixels apart.
    (x, y), supersampling = geometry.phase(i, j), math.ceil(geometry.scale / MAX_STEP_PX)
    step = geometry.scale / supersampling
    # Sample k has its centre at phase + (k + 0.5) steps, and camera pixel n at n + 0.5.
    matrix = np.array([[step, 0, x + step / 2 - 0.5], [0, step, y + step / 2 - 0.5]])
    # With a fourth channel OpenCV samples at twice the speed of three, to the same values.
    sampled = cv2.warpAffine(
        cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA),
        matrix,
        (tile_w * supersampling, tile_h * supersampling),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    # The mean of each output pixel's samples.
    if supersampling > 1:
        sampled = cv2.resize(sampled, (tile_w, tile_h), interpolation=cv2.INTER_AREA)
    cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB, dst=out)
    return out


def _is_whole(size_px: float) -> bool:
    return abs(size_px - round(size_px)) < WHOLE_TOLERANCE_PX
