"""A small colourful slide for tests, and fields cut from it at exact positions."""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import Frame, UInt8Array

MPP = 0.5

SMALLEST_PX, LARGEST_PX = 1.5, 24.0
"""Radii of the discs, by a power law of -3: what is sharp has the spectrum of a sharp picture."""


def painted(width_px: int = 640, height_px: int = 448, seed: int = 0) -> UInt8Array:
    """Return discs of colour over one another, all of them darker than glass, and in focus."""
    rng = np.random.default_rng(seed)
    slide = np.full((height_px, width_px, 3), 120, dtype=np.uint8)
    count = width_px * height_px // 20
    low, high = SMALLEST_PX**-2, LARGEST_PX**-2
    radii = (low - rng.random(count) * (low - high)) ** -0.5
    places = rng.random((count, 2)) * (width_px, height_px)
    colours = rng.integers(0, 200, (count, 3))
    for place, radius, colour in zip(places, radii, colours, strict=True):
        at = tuple(int(16 * c) for c in place)
        cv2.circle(slide, at, int(16 * radius), colour.tolist(), -1, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(slide, (0, 0), 0.7), dtype=np.uint8)


def field(
    slide: UInt8Array, x: int, y: int, width_px: int = 192, height_px: int = 128, mpp: float = MPP
) -> Frame:
    """Return the field whose top left corner is pixel (x, y) of the slide."""
    pixels = np.ascontiguousarray(slide[y : y + height_px, x : x + width_px])
    return Frame(pixels, (x + width_px / 2) * mpp, (y + height_px / 2) * mpp)
