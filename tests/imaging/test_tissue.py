"""The tissue test, on pictures that real instruments took."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from shared_data import shared

from edge_mil.bundle import TissueSpec
from edge_mil.imaging import TissueTest, tissue_share
from edge_mil.types import UInt8Array

TEST = TissueTest()


def pictures(folder: str, pattern: str = "*") -> dict[str, UInt8Array]:
    found = sorted(path for path in shared(folder).glob(pattern) if path.is_file())
    return {p.name: cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in found}  # type: ignore[misc, arg-type]


def test_a_pixel_is_tissue_when_one_channel_is_dark_enough() -> None:
    background = (240.0, 230.0, 250.0)
    rows = [(240, 230, 250), (216, 230, 250), (215, 230, 250), (240, 205, 250), (255, 255, 225)]
    pixels = np.array([rows], dtype=np.uint8)
    assert tissue_share(pixels, background, 25) == pytest.approx(3 / 5)


def test_the_mask_and_the_share_agree() -> None:
    pixels = np.random.default_rng(0).integers(190, 256, (40, 50, 3), dtype=np.uint8)
    assert TEST.mask(pixels).mean() / 255 == pytest.approx(TEST.share(pixels))
    assert TEST.count(pixels) == round(TEST.share(pixels) * 2000)


def test_the_defaults_are_those_of_a_bundle() -> None:
    spec = TissueSpec()
    assert (spec.background, spec.min_difference, spec.min_share) == (
        TEST.background,
        TEST.min_difference,
        TEST.min_share,
    )


@pytest.mark.shared
def test_bare_glass_is_no_tissue() -> None:
    for name, pixels in pictures("data/gate_negatives").items():
        if "pen" not in name:
            assert TEST.share(pixels) <= 0.01, name


@pytest.mark.shared
def test_even_nearly_empty_tissue_is_tissue() -> None:
    for kind in ("adi", "muc", "norm", "str", "tum", "lym", "mus"):
        for name, pixels in pictures(f"data/crc_he/{kind}").items():
            assert TEST.share(pixels) >= 4 * TEST.min_share, name


@pytest.mark.shared
def test_no_blood_field_is_blank() -> None:
    folder = shared("data/blood_disease_fov")
    for group in sorted(path.name for path in folder.iterdir()):
        for name, pixels in pictures(f"data/blood_disease_fov/{group}").items():
            assert TEST.share(pixels) >= 4 * TEST.min_share, name


def test_the_noise_of_a_camera_on_glass_is_no_tissue() -> None:
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(240, 8, (256, 256, 3)), 0, 255).astype(np.uint8)
    assert TEST.share(glass) < TEST.min_share / 2
