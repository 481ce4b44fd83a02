"""The gates: blur and motion are refused under noise, clean and oriented tissue is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_mil.demo.painted_slide import paint_slide
from edge_mil.errors import CalibrationError
from edge_mil.imaging import TissueTest
from edge_mil.imaging.cells.replacement import sharpness_of
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.quality.gate_fit import fit_gate_settings
from edge_mil.types import UInt8Array, Verdict

HEIGHT, WIDTH = 480, 640


@pytest.fixture(scope="module")
def field() -> UInt8Array:
    """A painted field full of tissue."""
    slide = paint_slide(3, positive=True, height_px=1024, width_px=1280).pixels
    return np.ascontiguousarray(slide[300 : 300 + HEIGHT, 300 : 300 + WIDTH])


@pytest.fixture(scope="module")
def gate() -> FrameGate:
    return FrameGate(GateSettings(), TissueTest())


def with_noise(light: np.ndarray, deviation: float = 4.0) -> UInt8Array:
    noise = np.random.default_rng(1).normal(0.0, deviation, light.shape)
    return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)


def out_of_focus(field: UInt8Array, radius_px: int) -> UInt8Array:
    side = 2 * radius_px + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.float32)
    return with_noise(cv2.filter2D(field.astype(np.float32), -1, disc / disc.sum()))


def moved_along(field: UInt8Array, length_px: int) -> UInt8Array:
    trace = np.full((1, length_px), 1.0 / length_px, np.float32)
    return with_noise(cv2.filter2D(field.astype(np.float32), -1, trace))


def test_a_clean_field_passes(gate: FrameGate, field: UInt8Array) -> None:
    found = gate.evaluate(field)
    assert found.verdict is None
    assert found.judged
    assert gate.saturation(field).passed


@pytest.mark.parametrize("radius_px", [4, 7, 12])
def test_noise_after_defocus_does_not_look_sharp(
    gate: FrameGate, field: UInt8Array, radius_px: int
) -> None:
    assert gate.evaluate(out_of_focus(field, radius_px)).verdict is Verdict.BLURRED


@pytest.mark.parametrize("length_px", [8, 20, 40])
def test_a_field_that_moved_is_called_moving(
    gate: FrameGate, field: UInt8Array, length_px: int
) -> None:
    assert gate.evaluate(moved_along(field, length_px)).verdict is Verdict.MOVING


def test_every_measure_carries_its_number_and_threshold(gate: FrameGate, field: UInt8Array) -> None:
    measures = {measure.name: measure for measure in gate.evaluate(out_of_focus(field, 8)).measures}
    assert measures["focus"].value < measures["focus"].threshold
    assert not measures["focus"].passed


def test_empty_glass_is_not_judged(gate: FrameGate) -> None:
    found = gate.evaluate(with_noise(np.full((HEIGHT, WIDTH, 3), 240.0), 2.0))
    assert found.verdict is None
    assert found.empty


def test_sharpness_falls_with_defocus_in_refused_fields_too(
    gate: FrameGate, field: UInt8Array
) -> None:
    planes = [gate.evaluate(out_of_focus(field, radius)).sharpness for radius in (1, 3, 5, 8, 12)]
    assert planes == sorted(planes, reverse=True)


def test_noise_alone_does_not_make_a_field_sharper(gate: FrameGate, field: UInt8Array) -> None:
    quiet, loud = gate.evaluate(field).sharpness, gate.evaluate(with_noise(field, 6.0)).sharpness
    assert loud == pytest.approx(quiet, rel=0.1)


def test_equal_pixels_are_equally_sharp_wherever_they_lie(field: UInt8Array) -> None:
    shifted = np.roll(field, (-32, -64), axis=(0, 1))
    assert sharpness_of(field, 164, 132, 264, 232) == sharpness_of(shifted, 100, 100, 200, 200) > 0


def test_a_box_of_a_few_pixels_has_no_sharpness(field: UInt8Array) -> None:
    assert sharpness_of(field, 50, 50, 53, 90) == 0.0


def test_a_displacement_settles_a_doubt(field: UInt8Array) -> None:
    gate = FrameGate(GateSettings(min_stillness=-3.0, doubt=100.0), TissueTest())
    before = cv2.cvtColor(np.roll(field, 24, axis=1), cv2.COLOR_RGB2GRAY)
    still = cv2.cvtColor(field, cv2.COLOR_RGB2GRAY)
    assert gate.evaluate(field, np.asarray(still, np.uint8)).verdict is None
    found = gate.evaluate(field, np.asarray(before, np.uint8))
    displacement = next(m.value for m in found.measures if m.name == "displacement_px")
    assert displacement == pytest.approx(24.0, abs=3.0)
    assert found.verdict is not None


def test_bright_glass_with_noise_is_not_clipped(gate: FrameGate) -> None:
    assert gate.saturation(with_noise(np.full((HEIGHT, WIDTH, 3), 252.0), 3.0)).passed


def test_white_glass_alone_is_not_clipped(gate: FrameGate, field: UInt8Array) -> None:
    white = field.copy()
    white[: HEIGHT // 2] = 255
    assert gate.saturation(white).passed


@pytest.mark.parametrize("gain", [1.5, 2.0])
def test_a_gain_clips(gate: FrameGate, field: UInt8Array, gain: float) -> None:
    bright = np.clip(field * gain, 0, 255).astype(np.uint8)
    assert not gate.saturation(bright).passed


def test_black_is_clipped_too(gate: FrameGate) -> None:
    measure = gate.saturation(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert (measure.name, measure.passed) == ("black_share", False)


def test_settings_survive_json() -> None:
    settings = GateSettings(min_focus=1.5)
    assert GateSettings.from_json(settings.as_json()) == settings


@pytest.mark.parametrize("document", [{"sharp": 1.0}, {"min_focus": "high"}])
def test_unknown_settings_and_values_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(CalibrationError):
        GateSettings.from_json(document)


def test_settings_are_checked() -> None:
    with pytest.raises(CalibrationError, match="max_clipped_share"):
        GateSettings(max_clipped_share=1.5)


def test_a_scan_fits_thresholds_and_shows_histograms(field: UInt8Array) -> None:
    scan = [np.roll(field, 40 * k, axis=1) for k in range(5)]
    fitted = fit_gate_settings([*scan, out_of_focus(field, 10)])
    assert fitted.fields == len(scan) + 1
    assert -4.0 <= fitted.settings.min_focus <= 4.0
    assert {histogram.name for histogram in fitted.histograms} == {
        "clipped_share",
        "stillness",
        "focus",
    }
    gate = FrameGate(fitted.settings, TissueTest())
    assert gate.evaluate(field).verdict is None
    assert gate.evaluate(out_of_focus(field, 10)).verdict is Verdict.BLURRED


def test_a_scan_of_glass_fits_nothing() -> None:
    with pytest.raises(CalibrationError, match="scan a few fields"):
        fit_gate_settings([np.full((HEIGHT, WIDTH, 3), 240, np.uint8)] * 6)
