"""Noise of the sensor: measured on glass, smoothed where a field shows nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from textured_slide import textured_slide, with_noise

from edge_mil.imaging.correction.noise import NoiseReduction, glass_noise
from edge_mil.types import UInt8Array

SLIDE = textured_slide(400, 300, seed=1, margin_px=60)


def error(pixels: UInt8Array, part: tuple[slice, slice]) -> float:
    return float(np.abs(pixels[part].astype(float) - SLIDE[part]).mean())


GLASS_PART = np.s_[:50, :]
TISSUE_PART = np.s_[80:220, 80:320]


@pytest.mark.parametrize("deviation", [0.8, 2.0, 5.0])
def test_noise_is_measured_on_glass_beside_dust(deviation: float) -> None:
    pixels = np.full((300, 400, 3), 200, np.uint8)
    pixels[:] = (np.linspace(120, 230, 400)[None, :, None]).astype(np.uint8)
    pixels[40:60, 100:110] = 90
    noisy = with_noise(pixels, deviation, seed=3)
    found = glass_noise(noisy, np.ones((30, 40), np.uint8))
    assert found == pytest.approx(np.hypot(deviation, 0.29), rel=0.12)


def test_where_there_is_no_glass_nothing_is_known() -> None:
    assert glass_noise(SLIDE, np.zeros(SLIDE.shape[:2], np.uint8)) is None
    white = np.full_like(SLIDE, 255)
    assert glass_noise(white, np.ones(SLIDE.shape[:2], np.uint8)) is None


@pytest.mark.parametrize("deviation", [1.0, 3.0])
def test_glass_becomes_even_and_tissue_is_not_worse(deviation: float) -> None:
    noisy = with_noise(SLIDE, deviation, seed=5)
    found = NoiseReduction(deviation).apply(noisy)
    assert error(found, GLASS_PART) < 0.35 * error(noisy, GLASS_PART)
    assert error(found, TISSUE_PART) < 1.02 * error(noisy, TISSUE_PART)


def test_what_the_flat_field_raised_is_noisier() -> None:
    gain = np.ones((300, 400, 1), np.float32)
    gain[:, 200:] = 2.0
    noise = np.random.default_rng(0).normal(0, 1.5, SLIDE.shape) * gain
    noisy = np.clip(np.rint(SLIDE + noise), 0, 255).astype(np.uint8)
    raised = np.s_[:50, 200:]
    told = NoiseReduction(1.5, gain).apply(noisy)
    assert error(told, raised) < 0.6 * error(NoiseReduction(1.5).apply(noisy), raised)


def test_strips_leave_no_seam() -> None:
    noisy = with_noise(SLIDE, 2.0, seed=1)
    whole = NoiseReduction(2.0).apply(noisy)
    lower = NoiseReduction(2.0).apply(noisy[37:])
    # Away from the edge that only one of them has, both see the same pixels.
    assert np.array_equal(whole[60:], lower[23:])
