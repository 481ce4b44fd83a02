"""Whole fields as instances: the best of each slot, whatever the order."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.errors import PixelSizeError, PositionError
from edge_mil.imaging import SlotMap, bring_to_tile, check_field_mpp, sharpness
from edge_mil.imaging.cells.field_slots import SHARPNESS_STEP
from edge_mil.types import Frame, Region, UInt8Array, Verdict

MPP = 0.1


def textured(seed: int, blur: float = 0.8, height: int = 48, width: int = 64) -> UInt8Array:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    return np.asarray(
        np.clip(128 + 60 * cv2.GaussianBlur(noise, (0, 0), blur), 0, 255), dtype=np.uint8
    )


def slots(outline: tuple[Region, ...] = ()) -> SlotMap:
    return SlotMap(
        24, 32, background=(240,) * 3, min_difference=25, min_share=0.05, mpp=MPP, outline=outline
    )


def centred(pixels: UInt8Array, x_px: float, y_px: float) -> Frame:
    return Frame(pixels, x_um=x_px * MPP, y_um=y_px * MPP)


def best_of(frames: list[tuple[int, Frame]]) -> dict[object, int]:
    found = slots()
    for number, frame in frames:
        found.commit(found.plan(frame, number))
    return dict(found.instances())


FRAMES = [
    centred(textured(seed, blur), 32 + dx, 24)
    for seed, (blur, dx) in enumerate(
        [(0.8, 3), (0.8, -2), (3.0, 0), (0.8, 70), (0.9, 66), (0.8, 2)]
    )
]
LOCATIONS = [Frame(textured(n % 4, 0.7), location_id=f"p{n % 3}") for n in range(8)]


@settings(max_examples=50)
@given(st.permutations(list(enumerate(FRAMES))))
def test_the_best_field_of_a_slot_wins_in_any_order(frames: list[tuple[int, Frame]]) -> None:
    found = best_of(frames)
    assert set(found) == {(0, 0), (1, 0)}
    assert found == best_of(list(enumerate(FRAMES)))
    # Number 2 is the nearest, and much blurred.
    assert found[0, 0] in (1, 5)


@settings(max_examples=30)
@given(st.permutations(list(enumerate(LOCATIONS))))
def test_locations_are_slots_and_the_smaller_hash_breaks_ties(
    frames: list[tuple[int, Frame]],
) -> None:
    wanted = best_of(list(enumerate(LOCATIONS)))
    found = best_of(frames)
    assert set(found) == {"p0", "p1", "p2"}
    for place, number in found.items():
        assert np.array_equal(LOCATIONS[number].pixels, LOCATIONS[wanted[place]].pixels)


def test_the_same_picture_of_the_same_place_is_a_duplicate() -> None:
    found = slots()
    frame = Frame(textured(1), location_id="a")
    first = found.plan(frame, 1)
    found.commit(first)
    second = found.plan(frame, 2)
    assert (first.verdict, second.verdict) == (Verdict.ACCEPTED, Verdict.DUPLICATE)
    assert not second.candidate
    assert second.replaces is None


def test_a_sharper_field_replaces_the_one_before() -> None:
    found = slots()
    found.commit(found.plan(centred(textured(1, 3.0), 32, 24), 1))
    update = found.plan(centred(textured(1, 0.6), 40, 24), 2)
    assert (update.verdict, update.replaces) == (Verdict.ACCEPTED, 1)
    found.commit(update)
    assert found.held == 1
    slot, number = found.remove(2)
    assert (slot, number) == ((0, 0), 1)
    assert found.remove(1) == ((0, 0), None)
    assert found.held == 0


def test_an_empty_field_is_blank() -> None:
    glass = np.full((48, 64, 3), 240, np.uint8)
    update = slots().plan(centred(glass, 32, 24), 1)
    assert update.verdict is Verdict.BLANK
    assert not update.candidate


def test_a_field_without_position_or_location_is_refused() -> None:
    with pytest.raises(PositionError, match="--independent"):
        slots().plan(Frame(textured(1)), 1)


def test_coverage_counts_the_slots_of_the_outline() -> None:
    found = slots((Region(0, 0, 4 * 6.4, 4.8),))
    found.set_field_size(48, 64)
    shares = []
    for number in range(4):
        found.commit(found.plan(centred(textured(number), 32 + 64 * number, 24), number))
        shares.append(found.coverage())
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_a_field_is_brought_to_the_tile_by_area_averaging() -> None:
    pixels = textured(3, height=96, width=128)
    found = bring_to_tile(pixels, 24, 32)
    blocks = pixels.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - blocks).max() <= 0.51


def test_sharpness_does_not_grow_with_noise() -> None:
    rng = np.random.default_rng(0)
    picture = textured(1, 2.0, 224, 224).astype(np.float64)
    clean = sharpness(picture.astype(np.uint8))
    noisy = sharpness(np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8))
    assert noisy == pytest.approx(clean, rel=0.15)
    flat = np.clip(128 + rng.normal(0, 8, (224, 224, 3)), 0, 255).astype(np.uint8)
    grey = cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY).astype(np.float64)
    plain = np.mean(np.diff(grey, axis=0) ** 2) + np.mean(np.diff(grey, axis=1) ** 2)
    assert sharpness(flat) < 0.03 * plain


def test_sharpness_falls_with_every_step_of_blur() -> None:
    measured = [sharpness(textured(1, blur, 224, 224)) for blur in (0.8, 1.2, 1.8, 2.7)]
    steps = [math.log(a / b) / math.log(SHARPNESS_STEP) for a, b in itertools.pairwise(measured)]
    assert min(steps) > 1


def test_a_field_at_another_pixel_size_is_refused_with_both_numbers() -> None:
    check_field_mpp(0.11, 0.1)
    check_field_mpp(0.09, 0.1)
    with pytest.raises(PixelSizeError, match=r"0\.12.*0\.1"):
        check_field_mpp(0.12, 0.1)
