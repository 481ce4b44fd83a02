"""The light estimated from real frames with cells and tissue on them."""

from __future__ import annotations

import numpy as np
import pytest
from shading_report import leave_one_out
from shared_data import shared

from edge_mil.calibration.flat_field import estimate_flat_field, shrink
from edge_mil.cameras.image_folder import read_image
from edge_mil.errors import CalibrationError


def vignette(size: tuple[int, int], depth: float) -> np.ndarray:
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    radius = ((x / size[1] - 0.55) ** 2 + (y / size[0] - 0.45) ** 2) * 2
    return (1 - depth * np.clip(radius, 0, 1))[..., None]


def dusty_glass(seed: int, light: np.ndarray) -> np.ndarray:
    """Empty glass with grains of dust, in uneven light."""
    rng = np.random.default_rng(seed)
    height, width = light.shape[:2]
    field = np.full((height, width, 3), 235.0)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(12):
        grain = np.hypot(x - rng.integers(width), y - rng.integers(height)) < rng.integers(2, 7)
        field[grain] *= 0.6
    noisy = field * light + rng.normal(0, 2, field.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def variation(light: np.ndarray) -> float:
    return float((light.std(axis=(0, 1)) / light.mean(axis=(0, 1))).max())


@pytest.mark.shared
def test_real_frames_lose_three_quarters_of_their_shading_and_more() -> None:
    folder = shared("data/brightfield_shading")
    rows = leave_one_out([read_image(path) for path in sorted(folder.glob("*.jpg"))], 5)
    # Measured: 0.264 before, 0.0068 after. The issue asks for a quarter.
    assert all(row.after <= row.before / 10 for row in rows)
    assert all(row.before > 0.2 for row in rows)
    # An honest mask keeps the dark edge, which is part of the shading.
    assert all(row.dark_edge_kept > 0.3 for row in rows)


def test_dust_on_glass_does_not_get_into_the_flat_field() -> None:
    light = vignette((240, 320), 0.5)
    found = estimate_flat_field([shrink(dusty_glass(seed, light)) for seed in range(6)])
    small = shrink(np.rint(light * 255).astype(np.uint8).repeat(3, axis=2))
    assert variation(small / found.flat) < 0.004
    assert found.variation_after < found.variation_before / 10


def test_a_dust_grain_of_one_frame_of_four_is_left_out() -> None:
    light = np.ones((120, 160, 1))
    frames = [shrink(dusty_glass(seed, light)) for seed in range(4)]
    frames[0][40:60, 40:60] *= 0.5
    assert float(estimate_flat_field(frames).flat.min()) > 0.98


@pytest.mark.shared
@pytest.mark.parametrize(("data", "most"), [("osteosarcoma_he", 0.01), ("blood_cells_fov", 0.025)])
def test_light_is_found_through_tissue_where_there_is_no_empty_field(
    data: str, most: float
) -> None:
    files = sorted(shared(f"data/{data}").rglob("*.jpg"))[:16]
    fields = [read_image(path) for path in files]
    light = vignette(fields[0].shape[:2], 0.5)
    shaded = [shrink(np.rint(field * light).astype(np.uint8)) for field in fields]
    found = estimate_flat_field(shaded)
    truth = shrink(np.rint(light * 255).astype(np.uint8).repeat(3, axis=2))
    # 0.136 before. What is left of the blood fields is their own microscope's shading.
    assert variation(truth / found.flat) < most


def test_the_dark_level_is_taken_off_before() -> None:
    light = vignette((120, 160), 0.5)
    frames = [shrink(dusty_glass(seed, light) // 2 + 20) for seed in range(5)]
    dark = np.full(frames[0].shape, 20, np.float32)
    small = shrink(np.rint(light * 255).astype(np.uint8).repeat(3, axis=2))
    with_dark = variation(small / estimate_flat_field(frames, dark).flat)
    without = variation(small / estimate_flat_field(frames).flat)
    assert with_dark < 0.01 < without


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([np.full((50, 60, 3), 200, np.float32)] * 3, "needs 4"),
        ([np.full((50, 60, 3), 1, np.float32)] * 5, "nearly black"),
        (
            [np.full((50, 60, 3), 200, np.float32)] * 4 + [np.full((50, 61, 3), 9, np.float32)],
            "differ in size",
        ),
    ],
)
def test_frames_that_do_not_do_are_refused(frames: list[np.ndarray], words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        estimate_flat_field(frames)
