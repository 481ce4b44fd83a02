"""Make the thumbnail of a field, for reports and viewers."""

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
    # By halves first: the mean of 2 x 2 pixels is five times as fast as fractional areas. The rest
    # is less than a half, where linear sampling loses nothing that can be seen.
    while max(small.shape[:2]) >= 2 * long_side_px and min(small.shape[:2]) >= 2:
        half = (small.shape[1] // 2, small.shape[0] // 2)
        small = np.asarray(cv2.resize(small, half, interpolation=cv2.INTER_LINEAR), np.uint8)
    if (small.shape[1], small.shape[0]) != size:
        small = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )[1]
    return encoded.tobytes()
