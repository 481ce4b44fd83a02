"""A session under a camera passport: mended tiles, a state that travels, and the same in batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle
from tiled_tiff import write_tiled_tiff

from edge_mil.calibration import Calibration, CalibrationFolder, CameraPassport
from edge_mil.calibration.parts import with_passport
from edge_mil.calibration.passport.effect import BagShift, Effect
from edge_mil.cameras import SlideFile
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.camera import CURVE_MATRIX, CameraCorrection, ColourMap
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.whole_slide.colour_correction import SlideColours
from edge_mil.pipeline.whole_slide.score import score_slide
from edge_mil.session import Session, SessionFolder, SessionSettings

PASS = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]
WARM = (0.9, 0.1, 0.0, 0.02, 0.0, 1.1, -0.05, 0.0, 0.05, 0.0, 1.2, -0.03)
"""A matrix by rows: a camera redder than its scanner."""
CORRECTION = CameraCorrection(ColourMap(CURVE_MATRIX, WARM), (1.0, 1.1, 1.3, 1.2))
NOW = 1e9


def passport(model: Model, **changed: object) -> CameraPassport:
    effect = Effect((BagShift(16, 200, 0.01, 0.02, 0.03),), 0.99, 0.9, 0.95, None, None)
    made = CameraPassport(
        bundle_digest=model.bundle.digest,
        bundle_name="small",
        precision="fp32",
        measured=NOW,
        mpp=MPP,
        scale=1.0,
        fields=20,
        cells=100,
        correction=CORRECTION,
        colour_errors={"none": 20.0, "curve-matrix": 2.0, "quadratic": 2.1},
        mtf=(1.0, 0.5),
        noise=0.01,
        before=effect,
        after=effect,
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def calibration(given: CameraPassport) -> Calibration:
    return with_passport(Calibration("20x", mpp=MPP), given)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("passport") / "b"))
    yield loaded
    loaded.close()


def test_live_equals_batch_under_a_passport(model: Model, tmp_path: Path) -> None:
    write_tiled_tiff(tmp_path / "slide.tiff", painted(), MPP)
    file = SlideFile(tmp_path / "slide.tiff", MPP)
    batch = score_slide(model, file, colours=SlideColours(camera=CORRECTION)).score
    plain = score_slide(model, file).score
    slide = file.read(0, 0, 640, 448)
    file.close()
    with Session(model, calibration=calibration(passport(model))) as session:
        live = [session.add(field(slide, x, y)) for x, y in PASS][-1].score
    assert live is not None
    assert batch is not None
    assert plain is not None
    assert np.allclose(live.logits, batch.logits, rtol=0, atol=1e-4)
    assert not np.allclose(live.logits, plain.logits, rtol=0, atol=1e-3)


def test_the_score_does_not_depend_on_the_order_of_the_fields(model: Model) -> None:
    scores = []
    for order in (PASS, PASS[::-1]):
        with Session(model, calibration=calibration(passport(model))) as session:
            scores.append([session.add(field(painted(), x, y)) for x, y in order][-1].score)
    assert scores[0] is not None
    assert scores[1] is not None
    assert np.allclose(scores[0].logits, scores[1].logits, rtol=0, atol=1e-6)


def test_a_restart_goes_on_under_the_passport_to_the_bit(model: Model, tmp_path: Path) -> None:
    given = calibration(passport(model))
    calibrations, folder = CalibrationFolder(tmp_path), SessionFolder(tmp_path)
    calibrations.save(given)
    settings = SessionSettings(mpp=MPP, calibration_id="20x", calibration_digest=given.digest)
    session = folder.create(model, settings)
    answers = [session.add(field(painted(), x, y)) for x, y in PASS[:6]]
    session.release()
    # Measured anew meanwhile: the session keeps the passport that it began with.
    calibrations.save(calibration(passport(model, correction=CameraCorrection(ColourMap()))))
    again = folder.open(session.session_id, lambda _: model)
    assert again.score() == answers[-1].score
    assert again.settings.camera == "verified"
    again.remove(6)
    assert again.add(field(painted(), *PASS[5])).score == answers[-1].score
    again.release()


def test_every_score_says_whether_its_camera_is_verified(model: Model) -> None:
    with Session(model, calibration=calibration(passport(model))) as session:
        assert session.add(field(painted(), 0, 0)).camera == "verified"
        assert session.status().camera == "verified"
        assert session.settings.camera_bound == 0.03
    with Session(model, MPP) as session:
        assert session.add(field(painted(), 0, 0)).camera == "not verified"
        assert "edge-mil calibrate camera" in session.settings.camera_note


def test_a_camera_that_cannot_be_mended_is_not_verified(model: Model) -> None:
    given = calibration(passport(model, reason="Its optics are soft."))
    with Session(model, calibration=given) as session:
        assert session.settings.camera == "not verified"
        assert session.settings.camera_note == "Its optics are soft."


def test_a_passport_of_another_bundle_changes_nothing(model: Model) -> None:
    given = calibration(passport(model, bundle_digest="sha256:other"))
    with Session(model, MPP) as session:
        plain = session.add(field(painted(), 0, 0)).score
    with Session(model, calibration=given) as session:
        assert session.add(field(painted(), 0, 0)).score == plain
        assert session.settings.camera == "not verified"
        assert "of another bundle" in session.settings.camera_note


def test_each_bundle_has_its_own_passport(model: Model) -> None:
    first = passport(model, bundle_digest="sha256:first", measured=NOW - 5)
    both = with_passport(calibration(first), passport(model))
    assert {p.bundle_digest for p in both.passports} == {"sha256:first", model.bundle.digest}
    assert both.measured["camera"] == NOW - 5
    newer = with_passport(both, passport(model, measured=NOW + 5))
    assert len(newer.passports) == 2


def test_where_a_passport_is_required_a_session_without_one_is_refused(
    model: Model, tmp_path: Path
) -> None:
    free = SessionFolder(tmp_path)
    strict = SessionFolder(tmp_path, require_passport=True)
    begun = free.create(model, SessionSettings(mpp=MPP))
    begun.release()
    with pytest.raises(CalibrationError, match="edge-mil calibrate camera") as caught:
        strict.create(model, SessionSettings(mpp=MPP))
    assert caught.value.details["reason"] == "PASSPORT_REQUIRED"
    assert strict.ids() == [begun.session_id]
    with pytest.raises(CalibrationError, match="only verified cameras"):
        strict.open(begun.session_id, lambda _: model)
    given = calibration(passport(model))
    CalibrationFolder(tmp_path).save(given)
    settings = SessionSettings(mpp=MPP, calibration_id="20x", calibration_digest=given.digest)
    strict.create(model, settings).release()


def test_a_white_balance_that_is_measured_anew_voids_the_passport(model: Model) -> None:
    from edge_mil.calibration.parts import DEPENDENTS, WHITE, without

    left = without(calibration(passport(model)), DEPENDENTS[WHITE])
    assert left.passports == ()
    assert "camera" not in left.measured
