"""Camera passports: pairs are found without positions, cameras are mended, and others refused."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np
import pytest
from passport_subject import (
    FIELDS,
    corners,
    demo_model,
    fields,
    painted_slide,
    pairs_of,
    passport_of,
)
from simulated_camera import analytic_camera, identity_camera

from edge_mil.calibration import Calibration, CameraPassport
from edge_mil.calibration.parts import with_passport
from edge_mil.calibration.passport.effect import score_shift
from edge_mil.errors import CalibrationError, DamagedCalibrationError
from edge_mil.pipeline.tile_scorer import ModelTileScorer
from edge_mil.types import Frame, UInt8Array

SLIDE, OTHER = 41, 42
CAMERA = analytic_camera(5)
BAG = 4


@functools.cache
def mended() -> CameraPassport:
    return passport_of(pairs_of(fields(CAMERA, painted_slide(SLIDE)), painted_slide(SLIDE)))


def cells(image: UInt8Array) -> UInt8Array:
    """Cut whole tiles of 128 px."""
    return np.stack(
        [
            image[y : y + 128, x : x + 128]
            for y in range(0, image.shape[0] - 127, 128)
            for x in range(0, image.shape[1] - 127, 128)
        ]
    )


def shift(scan: UInt8Array, seen: UInt8Array) -> float:
    """Return the mean shift of the score of bags of a few cells: that of all is nearly 1."""
    scorer = ModelTileScorer(demo_model())
    rows = [np.arange(k, k + BAG) for k in range(0, len(scan) - BAG + 1, BAG)]
    first, second = (scorer.scores(scorer.features(t), rows) for t in (scan, seen))
    return float(
        np.mean([score_shift(a, b) for a, b in zip(first, second, strict=True) if a and b])
    )


def test_every_field_is_found_to_a_fraction_of_a_pixel() -> None:
    slide = painted_slide(SLIDE)
    camera = dataclasses.replace(CAMERA, rotation_deg=0.0)
    found = pairs_of(fields(camera, slide), slide)
    assert len(found.fields) == FIELDS
    for one, corner in zip(found.fields, corners(slide), strict=True):
        assert np.abs(one.match.matrix[:, 2] - corner).max() < 0.4
        assert one.match.residual_px < 0.3


@pytest.mark.slow
def test_a_turned_and_mirrored_camera_is_paired_all_the_same() -> None:
    slide = painted_slide(SLIDE)
    turned = [
        dataclasses.replace(frame, pixels=np.ascontiguousarray(np.rot90(frame.pixels[:, ::-1])))
        for frame in fields(CAMERA, slide)
    ]
    found = pairs_of(turned, slide)
    assert len(found.fields) == FIELDS
    for one in found.fields:
        grey = [cv2.blur(t, (9, 9))[..., 1].ravel() for t in (one.camera[0], one.scan[0])]
        assert np.corrcoef(*grey)[0, 1] > 0.9


def test_a_camera_that_sees_what_the_scanner_saw_is_not_changed() -> None:
    slide = painted_slide(SLIDE)
    passport = passport_of(pairs_of(fields(identity_camera(), slide), slide))
    tiles = cells(painted_slide(OTHER))
    assert passport.verified
    assert passport.correction.apply(tiles) is tiles


def test_a_mended_camera_moves_the_score_of_another_slide_less() -> None:
    slide = painted_slide(OTHER)
    scan, seen = cells(slide), cells(CAMERA.see(slide))
    passport = mended()
    before, after = shift(scan, seen), shift(scan, passport.correction.apply(seen))
    assert before > 0.005
    assert after < 0.35 * before
    assert after <= passport.after.bound_of(BAG)


def test_the_effect_is_stated_before_and_after() -> None:
    passport = mended()
    assert passport.after.largest.mean < 0.35 * passport.before.largest.mean
    assert passport.after.cosine > passport.before.cosine
    assert [shift.cells for shift in passport.after.shifts][:3] == [1, 4, 16]
    assert passport.bound == passport.after.largest.bound


def test_the_scan_of_another_slide_is_refused() -> None:
    with pytest.raises(CalibrationError, match="another slide") as caught:
        pairs_of(fields(CAMERA, painted_slide(OTHER)), painted_slide(SLIDE))
    assert caught.value.details["reason"] == "PASSPORT_OTHER_SLIDE"


def test_too_few_fields_are_refused_with_how_many_are_needed() -> None:
    slide = painted_slide(SLIDE)
    with pytest.raises(CalibrationError, match="8 are needed; take 10 to 30"):
        pairs_of(fields(CAMERA, slide, 4), slide)


def test_glass_is_not_enough() -> None:
    glass = [Frame(np.full((400, 512, 3), 240, np.uint8), name=str(k)) for k in range(12)]
    with pytest.raises(CalibrationError, match="0 of 12 fields show tissue"):
        pairs_of(glass, painted_slide(SLIDE))


def test_fields_out_of_focus_are_refused_by_name() -> None:
    slide = painted_slide(SLIDE)
    frames = list(fields(CAMERA, slide))
    soft = [
        dataclasses.replace(f, pixels=cv2.GaussianBlur(f.pixels, (0, 0), 2.5)) for f in frames[::2]
    ]
    with pytest.raises(CalibrationError, match="out of focus") as caught:
        pairs_of([*frames[1::2], *soft], slide)
    assert caught.value.details["reason"] == "PASSPORT_OUT_OF_FOCUS"


@pytest.mark.slow
def test_a_single_field_out_of_focus_is_left_out() -> None:
    slide = painted_slide(SLIDE)
    frames = list(fields(CAMERA, slide))
    frames[3] = dataclasses.replace(frames[3], pixels=cv2.GaussianBlur(frames[3].pixels, (0, 0), 2))
    found = pairs_of(frames, slide)
    assert found.unfocused == ("03.png",)
    assert len(found.fields) == FIELDS - 1


@pytest.mark.slow
def test_a_camera_that_sees_nothing_but_blur_cannot_be_mended() -> None:
    slide = painted_slide(SLIDE)
    blurred = dataclasses.replace(CAMERA, sigma_px=2.0, sharpening=0.0)
    passport = passport_of(pairs_of(fields(blurred, slide), slide))
    assert not passport.verified
    assert "no filter brings it back" in passport.reason


def test_a_passport_is_read_back_as_it_was_stored() -> None:
    calibration = with_passport(Calibration("20x", mpp=0.5), mended())
    again = Calibration.from_bytes(calibration.to_bytes())
    assert again.digest == calibration.digest
    found = again.passport_for(mended().bundle_digest)
    assert found is not None
    tiles = cells(CAMERA.see(painted_slide(OTHER)))[:4]
    assert np.array_equal(found.correction.apply(tiles), mended().correction.apply(tiles))
    assert found.bound == mended().bound
    assert again.measured["camera"] == mended().measured


def test_a_calibration_without_a_passport_keeps_its_digest() -> None:
    assert b"passport" not in Calibration("20x", mpp=0.5).to_bytes()


def test_a_passport_with_impossible_numbers_is_damaged() -> None:
    stored = with_passport(Calibration("20x", mpp=0.5), mended()).to_bytes()
    kind = mended().correction.colour.kind.encode()
    for wrong in (b'"kind":"magic"', b'"kind":"none"'):
        with pytest.raises(DamagedCalibrationError):
            Calibration.from_bytes(stored.replace(b'"kind":"' + kind + b'"', wrong))


def test_each_tile_is_mended_by_its_own_pixels_alone() -> None:
    tiles = cells(CAMERA.see(painted_slide(OTHER)))[:6]
    together = mended().correction.apply(tiles)
    for tile, expected in zip(tiles, together, strict=True):
        assert np.array_equal(mended().correction.apply(tile[None])[0], expected)
