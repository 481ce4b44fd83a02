"""Paint tiles from noise in the colours of H&E, where there are no images to compare on."""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import UInt8Array

HAEMATOXYLIN, EOSIN, GLASS = (96.0, 70.0, 140.0), (225.0, 150.0, 185.0), (242.0, 240.0, 243.0)
BLOB_PX = (64, 24, 8)
"""Sizes of gland, cell group and nucleus in the noise."""


def paint_tiles(count: int, tile_px: tuple[int, int], seed: int) -> UInt8Array:
    """Return tiles, uint8 (count, h, w, 3); their colours vary with the seed, as stains do."""
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.6, 1.2, size=2)
    tiles = [_paint(rng, tile_px, strength) for _ in range(count)]
    return np.stack(tiles)


def _paint(rng: np.random.Generator, tile_px: tuple[int, int], strength: np.ndarray) -> UInt8Array:
    height, width = tile_px
    layers = []
    for size in BLOB_PX:
        small = rng.normal(size=(height // size + 2, width // size + 2)).astype(np.float32)
        layers.append(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    tissue = _soft(layers[0] + 0.5 * layers[1] + rng.normal(0.5, 0.5))
    nuclei = _soft(2 * layers[2] + layers[1] - rng.uniform(0.5, 2.0)) * tissue
    stain = np.stack([nuclei * strength[0], tissue * (1 - nuclei) * strength[1]], axis=-1)
    glass = np.array(GLASS, np.float32)
    colours = glass - np.array([HAEMATOXYLIN, EOSIN], np.float32)
    noise = rng.normal(0, 3, size=(height, width, 3))
    return np.clip(glass - stain @ colours + noise, 0, 255).astype(np.uint8)


def _soft(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-4 * values)))
