"""Stain normalisation: profiles, both methods, and tiles that do not depend on each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from edge_mil.cameras.image_folder import read_image
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.stain import METHODS, StainProfile, StainTransform, fit_profile

GLASS = (240.0, 240.0, 240.0)
PURPLE = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
VIOLET = np.array([[0.55, 0.76, 0.35], [0.20, 0.93, 0.31]])


def stained(stains: np.ndarray, strength: float, seed: int = 0, count: int = 6) -> np.ndarray:
    """Tiles whose two stains and their amounts are known."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(1.5, 0.3 * strength, (count, 64, 64, 2))
    # Nuclei and stroma: places with nearly one stain only.
    amounts[..., 0] *= rng.random((count, 64, 64)) < 0.5
    light = 240 * np.exp(-amounts @ (stains / np.linalg.norm(stains, axis=1, keepdims=True)))
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def test_the_stains_that_were_mixed_are_found() -> None:
    profile = fit_profile(stained(PURPLE, 1.0, count=20), GLASS)
    found = np.array(profile.stains).reshape(2, 3)
    truth = PURPLE / np.linalg.norm(PURPLE, axis=1, keepdims=True)
    degrees = np.degrees(np.arccos(np.clip((found * truth).sum(axis=1), -1, 1)))
    assert degrees.max() < 4


def test_another_batch_of_the_same_tissue_comes_to_the_targets_pixels() -> None:
    here, there = stained(VIOLET, 0.8, seed=1), stained(PURPLE, 1.2, seed=1)
    transform = StainTransform("macenko", fit_profile(here, GLASS), fit_profile(there, GLASS))
    before = np.abs(here.astype(int) - there).mean()
    after = np.abs(transform.apply(here).astype(int) - there).mean()
    assert after < before / 3


@pytest.mark.shared
@pytest.mark.parametrize("method", METHODS)
def test_two_real_slides_come_to_the_same_colours(method: str) -> None:
    root = shared("data/osteosarcoma_he")
    files = sorted(root.rglob("*.jpg"))
    here, there = read_image(files[0]), read_image(files[-1])
    source, target = fit_profile(here, GLASS), fit_profile(there, GLASS)
    moved = StainTransform(method, source, target).apply(here[None])
    came = fit_profile(moved, GLASS)
    before = np.abs(np.subtract(source.mean, target.mean)).max()
    assert np.abs(np.subtract(came.mean, target.mean)).max() < max(0.5 * before, 2.5)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), split=st.integers(0, 5))
def test_a_tile_does_not_depend_on_the_others(method: str, seed: int, split: int) -> None:
    tiles = stained(PURPLE, 1.0, seed)
    transform = StainTransform(
        method, fit_profile(tiles, GLASS), fit_profile(stained(VIOLET, 1.0), GLASS)
    )
    whole = transform.apply(tiles)
    parts = [transform.apply(part) for part in (tiles[:split], tiles[split:])]
    assert np.array_equal(whole, np.concatenate(parts))
    order = np.random.default_rng(seed).permutation(len(tiles))
    assert np.array_equal(whole[order], transform.apply(tiles[order]))


def test_reinhard_to_itself_changes_next_to_nothing() -> None:
    tiles = stained(PURPLE, 1.0)
    profile = fit_profile(tiles, GLASS)
    same = StainTransform("reinhard", profile, profile).apply(tiles)
    # What 8-bit L*a*b* costs on the way there and back.
    apart = np.abs(same.astype(int) - tiles)
    assert apart.mean() < 1
    assert apart.max() <= 8


def test_glass_becomes_the_targets_glass() -> None:
    source = fit_profile(stained(PURPLE, 1.0), GLASS)
    target = fit_profile(stained(VIOLET, 1.0), GLASS)
    glass = np.full((1, 8, 8, 3), 244, np.uint8)
    assert np.unique(StainTransform("macenko", source, target).apply(glass)).tolist() == [240]


def test_the_source_is_not_written_to() -> None:
    tiles = stained(PURPLE, 1.0)
    kept = tiles.copy()
    profile = fit_profile(tiles, GLASS)
    for method in METHODS:
        StainTransform(method, profile, profile).apply(tiles)
    assert np.array_equal(tiles, kept)


def test_too_little_tissue_is_refused() -> None:
    with pytest.raises(CalibrationError, match="0 pixels"):
        fit_profile(np.full((64, 64, 3), 238, np.uint8), GLASS)


def test_one_stain_gives_no_macenko_but_reinhard() -> None:
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2.0, 0.3, (64, 64, 1))
    light = 240 * np.exp(-amounts * np.array([0.65, 0.70, 0.29]))
    profile = fit_profile(np.rint(light).astype(np.uint8), GLASS)
    assert profile.stains == ()
    with pytest.raises(CalibrationError, match="only one stain"):
        StainTransform("macenko", profile, profile)
    StainTransform("reinhard", profile, profile)


def test_an_impossible_profile_is_refused() -> None:
    with pytest.raises(CalibrationError):
        StainProfile(GLASS, (50.0, 10.0, -5.0), (0.0, 1.0, 1.0))
    with pytest.raises(CalibrationError):
        StainTransform("vahadane", *[fit_profile(stained(PURPLE, 1.0), GLASS)] * 2)
