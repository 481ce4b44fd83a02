"""A small colourful slide for tests, and fields cut from it at exact positions."""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import Frame, UInt8Array

MPP = 0.5


def painted(width_px: int = 640, height_px: int = 448, seed: int = 0) -> UInt8Array:
    """Return blotches of colour, all of it darker than glass."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height_px // 16, width_px // 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width_px, height_px)), dtype=np.uint8)


def field(
    slide: UInt8Array, x: int, y: int, width_px: int = 192, height_px: int = 128, mpp: float = MPP
) -> Frame:
    """Return the field whose top left corner is pixel (x, y) of the slide."""
    pixels = np.ascontiguousarray(slide[y : y + height_px, x : x + width_px])
    return Frame(pixels, (x + width_px / 2) * mpp, (y + height_px / 2) * mpp)
