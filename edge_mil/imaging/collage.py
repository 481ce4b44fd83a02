"""Small pictures of fields, laid where they belong: the slide as far as it was seen."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from edge_mil.types import Region, UInt8Array

JPEG_QUALITY = 85
PAPER = 255
"""What was not seen is white, as the page is."""


def collage(pictures: Iterable[tuple[bytes, Region]], long_side_px: int) -> tuple[bytes, Region]:
    """Lay pictures on one sheet; later ones cover earlier ones.

    Args:
        pictures: JPEG or PNG, and where each lies, stage um. At least one.
        long_side_px: Long side of the sheet.

    Returns:
        The sheet as JPEG, and what it shows, stage um.
    """
    laid = list(pictures)
    left = min(region.x_um for _, region in laid)
    top = min(region.y_um for _, region in laid)
    right = max(region.x_um + region.width_um for _, region in laid)
    bottom = max(region.y_um + region.height_um for _, region in laid)
    scale = long_side_px / max(right - left, bottom - top)
    height, width = _px(bottom - top, scale), _px(right - left, scale)
    sheet: UInt8Array = np.full((height, width, 3), PAPER, dtype=np.uint8)
    for data, region in laid:
        # Rounded at both ends, so that neighbours meet without a seam.
        x0, x1 = (
            _edge(region.x_um - left, scale),
            _edge(region.x_um + region.width_um - left, scale),
        )
        y0, y1 = _edge(region.y_um - top, scale), _edge(region.y_um + region.height_um - top, scale)
        x1, y1 = min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        if picture is not None and x1 > x0 and y1 > y0:
            size = (x1 - x0, y1 - y0)
            sheet[y0:y1, x0:x1] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return encoded.tobytes(), Region(left, top, right - left, bottom - top)


def _px(length_um: float, scale: float) -> int:
    return max(1, round(length_um * scale))


def _edge(at_um: float, scale: float) -> int:
    return max(0, round(at_um * scale))
