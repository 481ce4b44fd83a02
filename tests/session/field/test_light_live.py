"""A session never counts glass as tissue: even fields, another lamp, inverted light, no colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from painted_field import MPP
from small_bundle import write_small_bundle
from textured_slide import textured_slide, with_noise

from edge_mil.calibration import Calibration
from edge_mil.imaging.quality.gate import GateSettings
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.session.field.light_history import HOLDS_FROM
from edge_mil.session.report.content import session_report
from edge_mil.types import FieldResult, Frame, UInt8Array, Verdict
from edge_mil.verdict_text import CALIBRATE, light_sentence

WIDTH, HEIGHT = 320, 256
SLIDE = textured_slide(4 * WIDTH, 2 * HEIGHT, seed=5, margin_px=100)
GLASS = (240.0, 240.0, 240.0)
MIDDLE = (500, 130)
"""Corner of a field that is full of tissue."""
EDGE = (0, 0)
"""Corner of a field with glass on two sides."""

Change = Callable[[UInt8Array], UInt8Array]


def frame_at(x: int, y: int, pixels: UInt8Array | None = None) -> Frame:
    shown = SLIDE[y : y + HEIGHT, x : x + WIDTH] if pixels is None else pixels
    at = ((x + WIDTH / 2) * MPP, (y + HEIGHT / 2) * MPP)
    return Frame(np.ascontiguousarray(shown), *at)


def changed(frame: Frame, change: Change) -> Frame:
    return dataclasses.replace(frame, pixels=change(frame.pixels))


def lamp(*gains: float) -> Change:
    return lambda pixels: np.clip(np.rint(pixels * np.array(gains)), 0, 255).astype(np.uint8)


def gradient(pixels: UInt8Array) -> UInt8Array:
    fall = np.linspace(1.0, 0.4, pixels.shape[1])[None, :, None]
    return np.clip(np.rint(pixels * fall), 0, 255).astype(np.uint8)


def negative(pixels: UInt8Array) -> UInt8Array:
    return (255 - pixels).astype(np.uint8)


def fluorescence(pixels: UInt8Array) -> UInt8Array:
    green = np.zeros_like(pixels)
    green[..., 1] = np.clip(pixels[..., 1].astype(int) * -1 + 243, 0, 255)
    return green


def one_channel(pixels: UInt8Array) -> UInt8Array:
    return np.repeat(pixels[..., 1:2], 3, axis=2)


CHANGES: dict[str, tuple[Change, str]] = {
    "lamp 80 %": (lamp(0.8), "lamp is at 80%"),
    "lamp 60 %": (lamp(0.6), "lamp is at 60%"),
    "lamp 40 %": (lamp(0.4), "lamp is at 40%"),
    "lamp 20 %": (lamp(0.2), "lamp is at 20%"),
    "warm": (lamp(1.0, 0.95, 0.75), "too warm"),
    "cold": (lamp(0.75, 0.9, 1.0), "too cold"),
    "gradient": (gradient, "Empty glass"),
    "negative": (negative, "light on dark"),
    "fluorescence": (fluorescence, "light on dark"),
    "one channel": (one_channel, "one grey channel"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b"))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def field_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("field") / "b"
    loaded = load_model(write_small_bundle(folder, instances="field"))
    yield loaded
    loaded.close()


def calibrated(background: tuple[float, ...] = GLASS) -> Calibration:
    return Calibration("lamp", mpp=MPP, background=background, measured={"flat-field": 1e9})


def why(result: FieldResult) -> str:
    return light_sentence(result.measures)


@pytest.mark.parametrize("level", [5, 40, 100, 160, 180, 195, 210])
@pytest.mark.parametrize("noise", [0.0, 2.0, 6.0])
def test_an_even_field_of_any_level_is_never_counted(
    model: Model, field_model: Model, level: int, noise: float
) -> None:
    pixels = with_noise(np.full((HEIGHT, WIDTH, 3), level, np.uint8), noise, seed=level)
    for loaded in (model, field_model):
        with Session(loaded, MPP) as session:
            for at in (EDGE, MIDDLE):
                result = session.add(frame_at(*at, pixels))
                assert result.verdict not in (Verdict.ACCEPTED, Verdict.DUPLICATE)
                assert any(not m.passed for m in result.measures)
            assert session.score() is None
            session._store.flush()
            assert not session._store.parts()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("calibration", [None, calibrated()], ids=["nominal", "calibrated"])
def test_another_light_is_refused_and_named(
    model: Model, calibration: Calibration | None, name: str
) -> None:
    change, words = CHANGES[name]
    with Session(model, MPP if calibration is None else None, calibration=calibration) as session:
        result = session.add(changed(frame_at(*EDGE), change))
        assert result.verdict is Verdict.WRONG_LIGHT
        assert words in why(result)
        assert result.light == session.status().light == "contradicted"
        assert session.score() is None


def test_the_sentence_names_the_command_that_mends_it(model: Model) -> None:
    with Session(model, MPP) as session:
        said = why(session.add(changed(frame_at(*EDGE), lamp(0.8))))
    assert CALIBRATE in said
    assert "(192, 192, 192)" in said
    assert "(240, 240, 240)" in said


def test_clipped_glass_contradicts_a_measured_background_and_proves_none(model: Model) -> None:
    bright = changed(frame_at(*EDGE), lamp(1.1))
    with Session(model, calibration=calibrated()) as session:
        assert session.add(bright).verdict is Verdict.WRONG_LIGHT
    with Session(model, MPP) as session:
        assert session.add(bright).verdict is not Verdict.WRONG_LIGHT
        assert session.status().light == "unproven"


def test_a_clean_session_proves_its_light(model: Model) -> None:
    for calibration in (None, calibrated()):
        with Session(model, None if calibration else MPP, calibration=calibration) as session:
            assert session.add(frame_at(*MIDDLE)).light == "unproven"
            assert session.add(frame_at(*EDGE)).light == "agrees"


def test_a_dark_field_of_tissue_is_too_dark(model: Model) -> None:
    with Session(model, MPP) as session:
        result = session.add(changed(frame_at(*MIDDLE), lamp(0.2)))
        assert result.verdict is Verdict.SATURATED
        assert [m.name for m in result.measures if not m.passed] == ["brightest"]


def test_a_contradiction_holds_fields_without_glass_until_glass_agrees(
    model: Model, tmp_path: Path
) -> None:
    folder, dim = SessionFolder(tmp_path), lamp(0.8)
    session = folder.create(model, SessionSettings(mpp=MPP))
    tissue = changed(frame_at(*MIDDLE), dim)
    assert session.add(tissue).verdict is Verdict.ACCEPTED  # it shows no glass
    counted = session.status().instances
    for _ in range(HOLDS_FROM):
        assert session.add(changed(frame_at(*EDGE), dim)).verdict is Verdict.WRONG_LIGHT
    held = session.add(tissue)
    assert held.verdict is Verdict.WRONG_LIGHT
    assert "show a field with empty glass" in why(held)
    session.release()
    # The hold outlives a restart, and the report says what was counted before.
    session = folder.open(session.session_id, lambda _: model)
    assert session.status().light == "contradicted"
    assert session.status().instances == counted
    assert session.add(tissue).verdict is Verdict.WRONG_LIGHT
    session._store.flush()
    content = session_report(folder, session.session_id, model.bundle)
    assert "contradicted" in content.warning
    assert content.settings["light"].startswith("CONTRADICTED")
    # The lamp is set back.
    assert session.add(frame_at(*EDGE)).light == "agrees"
    assert session.add(frame_at(*MIDDLE)).verdict is Verdict.ACCEPTED  # now brighter
    session.release()


def test_a_user_may_insist_and_the_state_still_says_so(model: Model) -> None:
    with Session(model, settings=SessionSettings(mpp=MPP, insist_light=True)) as session:
        result = session.add(changed(frame_at(*EDGE), lamp(0.8)))
        assert result.verdict is Verdict.ACCEPTED
        assert result.light == "contradicted"


def test_thresholds_of_an_earlier_release_refuse_no_light() -> None:
    known = GateSettings().as_json()
    gates = {name: known[name] for name in known if name in FIRST_GATES}
    restored = GateSettings.from_session(gates)
    assert (restored.max_dark_glass, restored.min_brightest_share) == (1.0, 0.0)
    assert GateSettings.from_session(known) == GateSettings()


FIRST_GATES = {
    "max_clipped_share",
    "max_black_share",
    "min_focus",
    "min_stillness",
    "moving_px",
    "doubt",
    "min_contrast",
}
"""Thresholds that release 0.1.0 stored."""
