"""Registration: right down to a tenth of overlap, or refused; never wrong."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hand_moved import read_slide
from random_pairs import random_pairs
from shared_data import shared
from textured_slide import textured_slide, with_noise

from edge_mil.imaging.registration.pairwise import Registration, confirm_shift, register_pair
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import UInt8Array

SIDE = 256
SLIDE = textured_slide(900, 900)


def field(x: int, y: int, deviation: float = 0.0) -> UInt8Array:
    return with_noise(SLIDE[y : y + SIDE, x : x + SIDE], deviation, x * 1000 + y)


def fit(a: UInt8Array, b: UInt8Array) -> Registration:
    found = register_pair(RegistrationPyramid.of(a), RegistrationPyramid.of(b))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "shift", [(0, 0), (13, -7), (-120, 45), (200, 10), (-10, -225), (228, 0), (150, 150)]
)
@pytest.mark.parametrize("deviation", [0.0, 3.0])
def test_a_shift_is_found_to_a_part_of_a_pixel(shift: tuple[int, int], deviation: float) -> None:
    found = fit(field(300, 300, deviation), field(300 + shift[0], 300 + shift[1], deviation))
    assert found.reliable
    assert max(abs(found.dx - shift[0]), abs(found.dy - shift[1])) < 0.3


@pytest.mark.parametrize("shift", [(256, 0), (-300, 40), (270, 270)])
def test_fields_that_share_nothing_are_refused(shift: tuple[int, int]) -> None:
    assert not fit(field(300, 300), field(300 + shift[0], 300 + shift[1])).reliable


def test_dust_on_bare_glass_is_no_lock() -> None:
    pictures = []
    for seed in (1, 2):
        glass = np.full((SIDE, SIDE, 3), 235, np.uint8)
        for x, y in ((40, 60), (200, 90), (120, 220)):  # dust on the camera: always there
            cv2.circle(glass, (x, y), 4, (120, 120, 120), -1)
        pictures.append(with_noise(glass, 2.0, seed))
    assert not fit(*pictures).reliable


def test_uneven_light_is_no_lock() -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    light = 1 - 0.5 * ((x - 90) ** 2 + (y - 150) ** 2) / SIDE**2
    pair = [(field(*at) * light[..., None]).astype(np.uint8) for at in ((100, 100), (500, 600))]
    assert not fit(*pair).reliable


def test_uneven_light_does_not_hide_a_shift() -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    light = 1 - 0.5 * ((x - 90) ** 2 + (y - 150) ** 2) / SIDE**2
    pair = [(field(*at) * light[..., None]).astype(np.uint8) for at in ((300, 300), (420, 350))]
    found = fit(*pair)
    assert found.reliable
    assert max(abs(found.dx - 120), abs(found.dy - 50)) < 1


def test_a_straight_edge_says_nothing() -> None:
    picture = np.full((SIDE, SIDE, 3), 230, np.uint8)
    picture[:, 100:] = 120
    assert not fit(with_noise(picture, 3.0, 1), with_noise(picture, 3.0, 2)).reliable


def test_a_given_shift_is_confirmed_to_the_pixel() -> None:
    a, b = RegistrationPyramid.of(field(300, 300)), RegistrationPyramid.of(field(400, 320))
    assert confirm_shift(a, b, 100, 20)
    assert not confirm_shift(a, b, 104, 20)


def _pairs() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "stage_tile_pairs.py"
    spec = importlib.util.spec_from_file_location("stage_tile_pairs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared
def test_real_stage_tiles_are_registered_or_refused_never_wrong() -> None:
    pairs = _pairs().all_pairs(shared("data/stage_tiles"))
    assert len(pairs) == 36
    assert max(pair.error_px for pair in pairs) <= 2.0
    # Most of the tiles are clipped to plain white; where the seam has structure it is found.
    assert sum(pair.believed for pair in pairs) >= 3


@pytest.mark.slow
@pytest.mark.shared
def test_random_fields_of_a_real_slide_are_registered_or_refused_never_wrong() -> None:
    slide = read_slide(shared("data/slides/cmu1_small_region.svs"))
    pairs = random_pairs(slide, (512, 384), 3.0, 300, seed=2)
    assert not any(pair.wrong for pair in pairs)
    shared_much = [pair for pair in pairs if pair.shared > 0.1]
    assert sum(pair.believed for pair in shared_much) >= 0.95 * len(shared_much)
