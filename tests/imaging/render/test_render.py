"""Pictures of results: thumbnails and heat maps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_mil.imaging import lay_over, paint_heat_map, thumbnail_jpeg
from edge_mil.imaging.render.influence_colours import SCALE, UNVISITED


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


def test_the_scale_is_fixed_and_diverges_from_white() -> None:
    values = np.array([[-9, -1, 0, 1, np.nan]], dtype=np.float32)
    painted = paint_heat_map(values, limit=1.0)
    wanted = [SCALE[0], SCALE[0], SCALE[2], SCALE[4], UNVISITED]
    assert painted[0].tolist() == [list(colour) for colour in wanted]
    assert paint_heat_map(values * 5, limit=5.0).tolist() == painted.tolist()
    assert paint_heat_map(values, cell_px=3).shape == (3, 15, 3)


def test_a_heat_map_is_laid_over_a_picture_of_another_size() -> None:
    picture = np.full((30, 60, 3), 100, np.uint8)
    heat = np.full((3, 6, 3), 200, np.uint8)
    assert np.abs(lay_over(picture, heat, 0.5).astype(int) - 150).max() <= 1
