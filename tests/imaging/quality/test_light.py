"""Reading the light of a field: no clean field contradicts, whatever part of a slide it shows."""

from __future__ import annotations

import numpy as np
import pytest
from textured_slide import textured_slide

from edge_mil.demo.painted_slide import paint_slide
from edge_mil.imaging import TissueTest
from edge_mil.imaging.quality.light import brightest, read_light
from edge_mil.types import UInt8Array

LIMIT = 0.05


@pytest.fixture(scope="module")
def slide() -> UInt8Array:
    return paint_slide(2, positive=True, height_px=1200, width_px=1400).pixels


@pytest.mark.parametrize("size", [(128, 192), (256, 320), (768, 1024)])
def test_no_part_of_a_clean_slide_contradicts(slide: UInt8Array, size: tuple[int, int]) -> None:
    height, width = size
    chance = np.random.default_rng(height)
    for _ in range(40):
        y = int(chance.integers(0, slide.shape[0] - height + 1))
        x = int(chance.integers(0, slide.shape[1] - width + 1))
        reading = read_light(slide[y : y + height, x : x + width], TissueTest(), LIMIT)
        assert not reading.contradicts, reading.measures


def test_grey_dust_on_glass_is_no_grey_camera() -> None:
    glass = np.full((480, 640, 3), 240, np.uint8)
    glass[100:130, 100:140] = 90
    glass[300:303, 200:400] = 120
    assert not read_light(glass, TissueTest(), LIMIT).contradicts


def test_a_field_that_is_too_small_says_nothing() -> None:
    small = read_light(np.full((64, 64, 3), 90, np.uint8), TissueTest(), LIMIT)
    assert not small.agrees
    assert not small.contradicts


def test_even_pink_tissue_is_no_glass() -> None:
    pink = np.empty((480, 640, 3), np.uint8)
    pink[:] = (226, 170, 200)
    assert not read_light(pink, TissueTest(), LIMIT).contradicts


def test_uneven_light_says_by_how_much() -> None:
    slide = textured_slide(1024, 768, margin_px=300)
    fall = np.linspace(1.0, 0.6, 1024)[None, :, None]
    reading = read_light(np.rint(slide * fall).astype(np.uint8), TissueTest(), LIMIT)
    found = {measure.name: measure.value for measure in reading.measures if not measure.passed}
    assert 60 < found["glass_unevenness"] < 96


def test_a_speck_of_light_is_not_the_brightest_level() -> None:
    dark = np.full((480, 640, 3), 30, np.uint8)
    dark[100:110, 100:110] = 255
    assert brightest(dark) == 30
