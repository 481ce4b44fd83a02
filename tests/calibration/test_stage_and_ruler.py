"""Pixel size, rotation and flips from stage moves; the pixel size from a ruler."""

from __future__ import annotations

import csv
import math

import cv2
import numpy as np
import pytest
from shared_data import shared

from edge_mil.calibration.ruler import measure_ruler
from edge_mil.calibration.stage_affine import StageMap, measure_stage
from edge_mil.cameras.image_folder import read_image
from edge_mil.errors import CalibrationError
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

MPP = 0.5
SIZE = 384, 512
STEPS = [(0, 0), (60, 5), (125, -10), (5, 70), (65, 62), (-50, 30)]
"""Stage moves, um; a third of the field and more is shared."""


def specimen(seed: int = 0, side: int = 1600) -> np.ndarray:
    """Something like tissue: blobs of many sizes."""
    rng = np.random.default_rng(seed)
    grey = np.zeros((side, side), np.float32)
    for sigma, weight in ((1.5, 12.0), (4, 40.0), (12, 120.0)):
        grey += weight * cv2.GaussianBlur(
            rng.normal(size=grey.shape).astype(np.float32), (0, 0), sigma
        )
    return np.clip(180 + 2 * grey, 0, 255).astype(np.uint8)


def taken(
    affine: np.ndarray, moves: list[tuple[float, float]], seed: int = 0
) -> list[RegistrationPyramid]:
    """Fields that a camera with this affine takes at these stage positions."""
    slide, rng, pyramids = specimen(), np.random.default_rng(seed), []
    for x_um, y_um in moves:
        # Camera pixel from the centre -> stage um -> pixel of the slide (at MPP).
        to_slide = affine / MPP
        centre = np.array([800 + x_um / MPP, 800 + y_um / MPP])
        shift = centre - to_slide @ np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
        field = cv2.warpAffine(
            slide,
            np.column_stack([to_slide, shift]),
            SIZE[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        noisy = field + rng.normal(0, 2, field.shape)
        pyramids.append(RegistrationPyramid.of(np.clip(noisy, 0, 255).astype(np.uint8)))
    return pyramids


def lying(degrees: float = 0.0, x: int = 1, y: int = 1, mpp: float = MPP) -> np.ndarray:
    a = math.radians(degrees)
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    return mpp * turn @ np.diag([x, y])


LYING = {
    "straight": (lying(), 0.0, False),
    "turned": (lying(2.5), 2.5, False),
    "y runs up": (lying(1.0, y=-1), 1.0, True),
    "x runs left": (lying(-1.0, x=-1), 179.0, True),
    "upside down": (lying(180), 180.0, False),
    "on its side": (lying(90), 90.0, False),
    "coarser": (lying(0.3, mpp=0.55), 0.3, False),
}


@pytest.mark.parametrize(("affine", "rotation_deg", "mirrored"), LYING.values(), ids=LYING.keys())
def test_the_camera_is_found_on_the_stage(
    affine: np.ndarray, rotation_deg: float, mirrored: bool
) -> None:
    found = measure_stage(taken(affine, STEPS), [(1000 + x, 2000 + y) for x, y in STEPS], None)
    assert np.abs(np.array(found.affine).reshape(2, 2) - affine).max() < 0.004 * MPP
    assert found.residual_px < 0.5
    assert math.isclose(found.mpp, math.sqrt(abs(np.linalg.det(affine))), rel_tol=0.003)
    assert abs((found.rotation_deg - rotation_deg + 180) % 360 - 180) < 0.2
    assert found.mirrored is mirrored


def test_one_position_that_is_wrong_is_left_out() -> None:
    positions = [(float(x), float(y)) for x, y in STEPS]
    positions[2] = (positions[2][0] + 40, positions[2][1])
    found = measure_stage(taken(lying(), STEPS), positions, MPP)
    assert math.isclose(found.mpp, MPP, rel_tol=0.005)
    assert found.left_out > 0


REFUSED = {
    "moves on one line": ([(0, 0), (40, 0), (80, 1), (120, 0)], lambda p: p, "one line"),
    "too few": ([(0, 0), (60, 0), (0, 60)], lambda p: p, "4 are needed"),
    "no overlap": (
        [(0, 0), (300, 0), (0, 300), (300, 300)],
        lambda p: p,
        "could be registered",
    ),
    "positions of other images": (
        STEPS,
        lambda p: [p[k] for k in (3, 0, 5, 1, 4, 2)],
        "agree with one pixel size",
    ),
}


@pytest.mark.parametrize(("moves", "said", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_moves_that_do_not_tell_are_refused(
    moves: list[tuple[float, float]], said: object, words: str
) -> None:
    positions = said([(float(x), float(y)) for x, y in moves])  # type: ignore[operator]
    with pytest.raises(CalibrationError, match=words):
        measure_stage(taken(lying(), moves), positions, None)


@pytest.mark.shared
@pytest.mark.parametrize("mpp", [None, 0.5])
def test_real_tiles_that_share_a_tenth_give_the_pixel_size(mpp: float | None) -> None:
    root = shared("data/stage_tiles")
    with (root / "positions.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    pyramids = [RegistrationPyramid.of(read_image(root / row["file"])) for row in rows]
    found: dict[str, StageMap] = {}
    for kind in ("nominal", "registered"):
        positions = [(float(r[f"{kind}_x_px"]) / 2, float(r[f"{kind}_y_px"]) / 2) for r in rows]
        found[kind] = measure_stage(pyramids, positions, mpp)
        assert found[kind].residual_px < 2
        assert math.isclose(found[kind].mpp, 0.5, rel_tol=0.005)
    # The source's own registration sees the same small rotation of the stage.
    assert 0.5 < abs(found["nominal"].rotation_deg) < 1.5
    assert abs(found["registered"].rotation_deg) < 0.3


def ruler(size: tuple[int, int], period: float, degrees: float, ticks: bool) -> np.ndarray:
    a = math.radians(degrees)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(float)
    across = x * math.cos(a) + y * math.sin(a) + 7.3
    along = -x * math.sin(a) + y * math.cos(a)
    along -= along.mean()
    near = np.abs((across + period / 2) % period - period / 2)
    field = 220 - 150 * np.clip(2.5 - near, 0, 1)
    if ticks:
        number = np.round(across / period).astype(int)
        length = np.where(number % 10 == 0, 400, np.where(number % 5 == 0, 250, 120))
        field = np.where(np.abs(along) < length, field, 220)
    noisy = field + np.random.default_rng(0).normal(0, 3, field.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("ticks", [False, True], ids=["grating", "ticks of three lengths"])
@pytest.mark.parametrize(
    ("size", "period", "degrees"),
    [
        ((768, 1024), 20.37, 13),
        ((960, 1280), 90.11, 91),
        ((512, 640), 6.6, 45),
        ((1536, 2048), 47.77, -33.3),
    ],
)
def test_a_rulers_lines_are_measured_at_any_angle(
    size: tuple[int, int], period: float, degrees: float, ticks: bool
) -> None:
    found = measure_ruler(ruler(size, period, degrees, ticks))
    assert math.isclose(found.period_px, period, rel_tol=5e-4)
    assert abs((found.angle_deg - degrees + 90) % 180 - 90) < 0.1


@pytest.mark.shared
def test_tissue_is_no_ruler() -> None:
    files = sorted(shared("data/osteosarcoma_he").rglob("*.jpg"))[::8]
    files += sorted(shared("data/breakhis_400x").rglob("*.png"))[::8]
    for path in files:
        with pytest.raises(CalibrationError, match="no regular lines"):
            measure_ruler(read_image(path)[:, :, 1])


def test_an_empty_image_is_no_ruler() -> None:
    with pytest.raises(CalibrationError):
        measure_ruler(np.full((200, 300), 200, np.uint8))
