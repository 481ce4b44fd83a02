"""A stage is compared with the images: a good one is left alone, an inexact one refined."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from textured_slide import textured_slide, with_noise

from edge_mil.cameras.scan_plan import serpentine
from edge_mil.errors import PixelSizeError
from edge_mil.imaging.registration import PairOutcome, StageCheck, StageComparison, check_affine
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

MPP = 0.5
SIZE = (256, 192)
SLIDE = textured_slide(1000, 760)
PLACES = serpentine(1000, 760, *SIZE, 0.25)
DISPLACED = PairOutcome.DISPLACED

Stage = Callable[[float, float], tuple[float, float]]


def scan(
    stage: Stage, places: list[tuple[int, int]], deviation: float = 0.0
) -> list[StageComparison]:
    check, found = StageCheck(SIZE, MPP), []
    for number, (x, y) in enumerate(places, start=1):
        pixels = with_noise(SLIDE[y : y + SIZE[1], x : x + SIZE[0]], deviation, number)
        place = stage((x + SIZE[0] / 2) * MPP, (y + SIZE[1] / 2) * MPP)
        found.append(check.compare(number, RegistrationPyramid.of(pixels), *place, settled=False))
        if found[-1].located:
            check.commit(found[-1])
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deviation", [0.0, 3.0])
def test_a_perfect_stage_is_left_alone_in_any_order(seed: int, deviation: float) -> None:
    places = [PLACES[k] for k in np.random.default_rng(seed).permutation(len(PLACES))]
    found = scan(lambda x, y: (x, y), places, deviation)
    assert all(one.located and one.shift_px == (0, 0) for one in found)


def test_a_stage_that_jitters_is_refined_and_drawn_back_to_its_zero() -> None:
    errors = np.random.default_rng(1).normal(0, 4.0, (len(PLACES), 2))
    remaining = iter(errors)

    def jittering(x: float, y: float) -> tuple[float, float]:
        dx, dy = next(remaining)
        return x + dx, y + dy

    found = scan(jittering, PLACES, 2.0)
    left = np.array([one.shift_px for one in found]) + errors / MPP
    # Of the jitter of 8 px little is left between one field and the next, and the error that all
    # inherit from the first is drawn out, a pixel at a time.
    assert np.abs(np.diff(errors, axis=0)).max() / MPP > 30
    assert np.abs(np.diff(left, axis=0)).max() <= 4
    assert np.abs(np.diff(left, axis=0)).mean() <= 1
    assert np.abs(left[0]).max() > 5
    assert np.abs(left[-6:].mean(axis=0)).max() <= 3.5


@pytest.mark.parametrize(
    "stage",
    [
        lambda x, y: (-x, y),
        lambda x, y: (x, -y),
        lambda x, y: (-x, -y),
        lambda x, y: (y, x),
        lambda x, y: (x / 2, y / 2),
    ],
)
def test_fields_of_a_wrong_stage_are_found_displaced(stage: Stage) -> None:
    found = scan(stage, PLACES[:8])
    displaced = [one for one in found if any(p.outcome is DISPLACED for p in one.pairs)]
    assert len(displaced) >= 2
    assert any(not one.located for one in displaced)
    assert all(one.searches <= 2 + 4 for one in found)


def test_one_wrong_position_among_good_ones_is_refused() -> None:
    calls = iter(range(1000))

    def slipping(x: float, y: float) -> tuple[float, float]:
        return (x + 60, y) if next(calls) == 8 else (x, y)

    found = scan(slipping, PLACES)
    assert not found[8].located
    assert found[8].disagreement_um == pytest.approx(60, abs=2)
    assert all(one.located for one in found[:8] + found[9:])


def test_an_uncalibrated_affine_is_refused_with_both_numbers() -> None:
    with pytest.raises(PixelSizeError, match=r"says 1 µm.*0\.25"):
        check_affine((1.0, 0.0, 0.0, 1.0), 0.25)


def test_a_turned_camera_keeps_its_scale() -> None:
    check_affine((0.0, 0.25, -0.25, 0.0), 0.25)


def test_another_objective_at_the_same_place_is_recognised() -> None:
    import cv2

    check = StageCheck(SIZE, MPP)
    x, y = 300, 300
    field = SLIDE[y : y + SIZE[1], x : x + SIZE[0]]
    centre = (x + SIZE[0] / 2) * MPP, (y + SIZE[1] / 2) * MPP
    check.commit(check.compare(1, RegistrationPyramid.of(field), *centre))
    inner = field[SIZE[1] // 4 : -SIZE[1] // 4, SIZE[0] // 4 : -SIZE[0] // 4]
    larger = np.asarray(cv2.resize(inner, SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)
    one = check.compare(2, RegistrationPyramid.of(larger), *centre)
    assert (one.located, one.scale_ratio) == (False, 2.0)
