"""A small JPEG of a field, for reports and viewers."""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import UInt8Array

THUMBNAIL_PX = 256
"""Long side of a thumbnail."""

JPEG_QUALITY = 80
"""About 10 KB for a stained field of 256 px."""


def thumbnail_jpeg(pixels: UInt8Array, long_side_px: int = THUMBNAIL_PX) -> bytes:
    """Return a JPEG of an RGB uint8 image (h, w, 3); small ones are not enlarged."""
    height, width = pixels.shape[:2]
    shrink = min(1.0, long_side_px / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = pixels
    if size != (width, height):
        # Close to the size by whole steps first: averaging every pixel of a large frame into
        # fractional areas takes five times as long, for a picture that no one measures.
        step = max(1, int(1 / shrink / 2))
        small = cv2.resize(pixels[::step, ::step], size, interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )[1]
    return encoded.tobytes()
