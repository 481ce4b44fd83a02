"""Change how much of each stain tiles show, as another laboratory would.

INT8 ranges are measured on one stain. A recipe that holds there can clip a stronger one, so the
search also compares bags whose haematoxylin and eosin were multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_mil.types import UInt8Array
from edge_mil_export.fidelity.bags import BAG_TILES, MAX_BAGS, MAX_COMPARED_TILES, Bag
from edge_mil_export.tiles import spread

SHIFTS = ((1.4, 0.7), (0.7, 1.4), (1.4, 1.4), (0.7, 0.7))
"""Factors of haematoxylin and eosin: more and less of each."""
HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
"""Optical densities in red, green and blue; Ruifrok and Johnston 2001."""
WHITE = 255.0


def shift_stain(tiles: UInt8Array, haematoxylin: float, eosin: float) -> UInt8Array:
    """Return the tiles with each stain's amount multiplied.

    Args:
        tiles: RGB uint8, shape (n, h, w, 3).
        haematoxylin: Factor of its optical density.
        eosin: Factor of its optical density.

    Source:
        Colour deconvolution: Ruifrok and Johnston 2001.
    """
    # A linear change of optical densities in the basis of both stains and what is neither.
    stains = np.array([HAEMATOXYLIN, EOSIN])
    basis = np.vstack([stains, np.cross(*stains)])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    change = np.linalg.inv(basis) @ np.diag([haematoxylin, eosin, 1.0]) @ basis
    # Grey levels to densities by a table; 0 is taken as half a level.
    levels = np.maximum(np.arange(256, dtype=np.float32), 0.5)
    densities = np.repeat(np.log(WHITE / levels)[None, :, None], 3, axis=2)
    # exp(log white - density) is the light that is left.
    matrix = np.column_stack([-change.T, np.full(3, np.log(WHITE))]).astype(np.float32)
    out = np.empty_like(tiles)
    for tile, shifted in zip(tiles, out, strict=True):
        light = cv2.exp(cv2.transform(cv2.LUT(tile, densities), matrix))
        shifted[...] = cv2.convertScaleAbs(light)
    return out


def shifted_bags(bags: Sequence[Bag]) -> tuple[Bag, ...]:
    """Return at most 32 bags under shifted stain, some 384 tiles.

    Many bags get one of the four shifts each, in turn; a few get all of them.
    """
    kept = [bags[number] for number in spread(len(bags), MAX_BAGS)]
    pairs = [
        (bag, SHIFTS[(number + turn) % len(SHIFTS)])
        for turn in range(len(SHIFTS))
        for number, bag in enumerate(kept)
    ][:MAX_BAGS]
    share = max(BAG_TILES, MAX_COMPARED_TILES // len(pairs))
    return tuple(
        Bag(
            f"{bag.name}, haematoxylin x {shift[0]:g}, eosin x {shift[1]:g}",
            shift_stain(bag.tiles[spread(len(bag.tiles), share)], *shift),
        )
        for bag, shift in pairs
    )
