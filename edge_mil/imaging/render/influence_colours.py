"""Signed values on a grid as a picture: blue against, white for nothing, red for the class."""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import Float32Array, UInt8Array

DEFAULT_LIMIT = 1.0
"""Logits at which the colour is full: a fixed scale, so that two slides can be compared."""

UNVISITED = (225, 225, 225)
"""Grey of a cell without a value."""

SCALE = (
    (33, 102, 172),
    (146, 197, 222),
    (247, 247, 247),
    (244, 165, 130),
    (178, 24, 43),
)
"""ColorBrewer's RdBu, reversed: even steps from -limit to +limit, safe for colour-blind eyes."""


def paint_heat_map(
    values: Float32Array, limit: float = DEFAULT_LIMIT, cell_px: int = 1
) -> UInt8Array:
    """Return an RGB picture of values, each cell a square.

    Args:
        values: float32, shape (rows, columns); NaN where there is none.
        limit: Value of full colour, > 0; larger ones look the same.
        cell_px: Side of a cell in the picture.

    Returns:
        RGB uint8, shape (rows * cell_px, columns * cell_px, 3).
    """
    known = np.isfinite(values)
    place = (np.clip(np.where(known, values, 0.0) / limit, -1.0, 1.0) + 1.0) / 2.0
    steps = np.linspace(0.0, 1.0, len(SCALE))
    colours = np.array(SCALE, dtype=np.float64)
    channels = [np.interp(place, steps, colours[:, channel]) for channel in range(3)]
    picture = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    picture[~known] = UNVISITED
    return picture.repeat(cell_px, axis=0).repeat(cell_px, axis=1)


def lay_over(picture: UInt8Array, heat: UInt8Array, share: float = 0.5) -> UInt8Array:
    """Return a heat map blended over a picture of the same part of the slide.

    Args:
        picture: RGB uint8, shape (h, w, 3).
        heat: RGB uint8, any size; it is brought to that of the picture.
        share: Weight of the heat map, 0 to 1.
    """
    height, width = picture.shape[:2]
    sized = cv2.resize(heat, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.addWeighted(picture, 1 - share, sized, share, 0).astype(np.uint8, copy=False)
