"""A thumbnail keeps the colours of its field and has a long side of 256."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_mil.imaging import thumbnail_jpeg


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((768, 1024), (192, 256)),
        ((3000, 1000), (256, 85)),
        ((90, 120), (90, 120)),
        ((1, 700), (1, 256)),
    ],
)
def test_a_thumbnail_has_a_long_side_of_256(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    pixels = np.empty((*size, 3), np.uint8)
    pixels[...] = (200, 60, 120)
    small = cv2.imdecode(np.frombuffer(thumbnail_jpeg(pixels), np.uint8), cv2.IMREAD_COLOR)
    assert small is not None
    assert small.shape[:2] == wanted
    assert np.abs(small.mean(axis=(0, 1)) - (120, 60, 200)).max() < 4
