"""A session under a calibration: corrected fields, its background and stain; kept to the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle
from tiled_tiff import write_tiled_tiff

from edge_mil.bundle import StainSpec
from edge_mil.calibration import Calibration, CalibrationFolder, stain_transform
from edge_mil.cameras import SlideFile
from edge_mil.errors import CalibrationError, FrameError
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import fit_profile
from edge_mil.imaging.quality.gate import GateSettings
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.whole_slide.colour_correction import SlideColours
from edge_mil.pipeline.whole_slide.score import score_slide
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Float32Array, Frame, UInt8Array, Verdict

SLIDE = painted()
PASS = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]
NOW = 1e9


def vignette(depth: float = 0.5, height: int = 128, width: int = 192) -> Float32Array:
    """Return light that falls off to the corners."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - depth * (x**2 + y**2) / 2
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def calibration(**parts: object) -> Calibration:
    shading = ShadingCorrection(vignette(), (128, 192))
    given = {"shading": shading, "mpp": MPP, "measured": {"flat-field": NOW}, **parts}
    return Calibration("20x", **given)  # type: ignore[arg-type]


def shaded(frame: Frame) -> Frame:
    """Return the field as the camera with uneven light sees it."""
    pixels = np.rint(frame.pixels * vignette()).astype(np.uint8)
    return dataclasses.replace(frame, pixels=pixels)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b", channels=2))
    yield loaded
    loaded.close()


def test_uneven_light_is_taken_out_before_anything_is_judged(model: Model) -> None:
    with Session(model, MPP) as clean:
        wanted = [clean.add(field(SLIDE, x, y)) for x, y in PASS][-1].score
    with Session(model, calibration=calibration()) as session:
        assert (session.settings.mpp, session.settings.mpp_source) == (MPP, "calibration")
        found = [session.add(shaded(field(SLIDE, x, y))) for x, y in PASS][-1].score
        # What the corners of one field and the middle of another show is one place.
        for x, y in [(x + 40, y + 30) for x, y in PASS if x < 400 and y < 250]:
            assert session.add(shaded(field(SLIDE, x, y))).verdict is Verdict.DUPLICATE
    with Session(model, MPP) as uncorrected:
        off = [uncorrected.add(shaded(field(SLIDE, x, y))) for x, y in PASS][-1].score
    assert wanted is not None
    assert found is not None
    assert off is not None
    error = abs(found.probabilities[1] - wanted.probabilities[1])
    assert error < 0.02
    assert error < 0.2 * abs(off.probabilities[1] - wanted.probabilities[1])


def test_the_background_is_the_calibrated_one(model: Model) -> None:
    dim = Frame(np.full((128, 192, 3), 180, np.uint8), 96.0, 64.0)
    with Session(model, MPP) as session:
        assert session.add(dim).verdict is Verdict.WRONG_LIGHT
    given = calibration(shading=None, background=(182.0, 182.0, 182.0))
    with Session(model, calibration=given) as session:
        assert session.add(dim).verdict is Verdict.BLANK


def test_a_field_of_another_size_than_the_calibration_is_an_error(model: Model) -> None:
    with (
        Session(model, calibration=calibration()) as session,
        pytest.raises(FrameError, match="192 x 128"),
    ):
        session.add(field(SLIDE, 0, 0, 96, 64))


def test_a_session_keeps_its_calibration_when_that_is_measured_anew(
    model: Model, tmp_path: Path
) -> None:
    gates = GateSettings(max_clipped_share=0.2)
    first = calibration(gates=gates)
    calibrations, folder = CalibrationFolder(tmp_path), SessionFolder(tmp_path)
    calibrations.save(first)
    settings = SessionSettings(mpp=MPP, calibration_id="20x", calibration_digest=first.digest)
    session = folder.create(model, settings)
    assert session.settings.gates == gates.as_json()
    one = session.add(shaded(field(SLIDE, 0, 0)))
    two = session.add(shaded(field(SLIDE, 150, 0)))
    session.release()
    calibrations.save(calibration(shading=None, gates=None))
    with pytest.raises(CalibrationError, match="measured anew"):
        folder.create(model, settings)
    # The session has its own copy.
    session = folder.open(session.session_id, lambda _: model)
    assert session.settings.gates == gates.as_json()
    session.remove(2)
    assert session.score() == one.score
    assert session.add(shaded(field(SLIDE, 150, 0))).score == two.score
    session.release()


def test_a_session_without_its_calibration_is_refused(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    with pytest.raises(CalibrationError, match="no calibration '20x'"):
        folder.create(model, SessionSettings(mpp=MPP, calibration_id="20x"))
    with pytest.raises(CalibrationError, match="none was given"):
        Session(model, settings=SessionSettings(mpp=MPP, calibration_id="20x"))
    settings = SessionSettings(mpp=MPP, calibration_id="20x", calibration_digest="sha256:0")
    with pytest.raises(CalibrationError, match="give the one that it began with"):
        Session(model, settings=settings, calibration=calibration())
    assert folder.ids() == []


def reddish(slide: UInt8Array) -> UInt8Array:
    """Return a slide of another stain batch."""
    return np.clip(slide * (0.9, 1.1, 1.2) + (20, 0, -10), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_with_stain_normalisation_live_equals_batch(method: str, tmp_path: Path) -> None:
    glass = (240.0, 240.0, 240.0)
    target = fit_profile(painted(seed=3), glass)
    spec = StainSpec(
        method, target.background, target.mean, target.deviation, target.stains, target.reach
    )
    model = load_model(write_small_bundle(tmp_path / "b", stain=spec))
    with pytest.raises(CalibrationError, match="stain normalisation"):
        Session(model, MPP)
    slide = reddish(SLIDE)
    given = calibration(shading=None, stain=fit_profile(slide, glass))
    write_tiled_tiff(tmp_path / "slide.tiff", slide, MPP)
    file = SlideFile(tmp_path / "slide.tiff", MPP)
    colours = SlideColours(stain=stain_transform(model.input, given))
    batch = score_slide(model, file, colours=colours).score
    plain = score_slide(model, file).score
    lossless = file.read(0, 0, 640, 448)
    file.close()
    with Session(model, calibration=given) as session:
        live = [session.add(field(lossless, x, y)) for x, y in PASS][-1].score
    model.close()
    assert live is not None
    assert batch is not None
    assert plain is not None
    assert live.instances == batch.instances
    assert np.allclose(live.logits, batch.logits, rtol=0, atol=1e-4)
    assert not np.allclose(live.logits, plain.logits, rtol=0, atol=1e-3)


def test_white_gains_of_a_slide_file_are_those_of_its_camera() -> None:
    gains = (1.0, 1.1, 1.35)
    even = np.ones((1, 1, 3), np.float32)
    camera = ShadingCorrection(even, (448, 640), None, gains).apply(SLIDE)
    assert np.array_equal(SlideColours(gains).balanced(SLIDE), camera)
