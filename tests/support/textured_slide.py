"""A slide of made-up tissue: structure at every scale, no two places alike, glass around it."""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import UInt8Array


def textured_slide(width_px: int, height_px: int, seed: int = 0, margin_px: int = 0) -> UInt8Array:
    """Return RGB uint8 (height_px, width_px, 3); `margin_px` of glass on every side."""
    chance = np.random.default_rng(seed)
    grey = np.zeros((height_px, width_px), np.float32)
    for sigma in (2.0, 6.0, 16.0):
        size = (max(2, int(width_px / sigma)), max(2, int(height_px / sigma)))
        noise = chance.normal(0, 1, size[::-1]).astype(np.float32)
        grey += cv2.resize(noise, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    tissue = np.clip(150 + 25 * grey, 0, 225)
    slide = np.full((height_px, width_px, 3), 240, np.uint8)
    inside = np.s_[margin_px : height_px - margin_px, margin_px : width_px - margin_px]
    slide[inside] = np.stack([tissue, tissue * 0.8, tissue * 0.95], axis=2)[inside]
    return slide


def with_noise(pixels: UInt8Array, deviation: float, seed: int) -> UInt8Array:
    """Return the pixels as a camera with noise sees them."""
    if not deviation:
        return pixels
    noise = np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)
