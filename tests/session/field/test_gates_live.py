"""What a session refuses, with which numbers, and that a refused field gives nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.imaging.quality.gate import GateSettings
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import FieldResult, Frame, Measure, UInt8Array, Verdict

SLIDE = painted()
SIZE = (320, 256)
"""The gates want nine blocks of tissue and more."""
SHARP = field(SLIDE, 100, 100, *SIZE)


@pytest.fixture(scope="module", params=["grid", "field"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp(request.param)
    loaded = load_model(write_small_bundle(folder / "b", instances=request.param))
    yield loaded
    loaded.close()


def like(frame: Frame, pixels: object) -> Frame:
    return dataclasses.replace(frame, pixels=np.asarray(pixels, np.uint8))


def measure(result: FieldResult, name: str) -> Measure:
    return next(m for m in result.measures if m.name == name)


def moved(pixels: UInt8Array, way_px: int) -> UInt8Array:
    return np.asarray(cv2.blur(pixels, (way_px, 1)), np.uint8)


BAD = {
    Verdict.BLURRED: like(SHARP, cv2.GaussianBlur(SHARP.pixels, (0, 0), 4)),
    Verdict.MOVING: like(SHARP, moved(SHARP.pixels, 14)),
    Verdict.SATURATED: like(
        SHARP, np.where(SHARP.pixels > 100, 255, SHARP.pixels.astype(int) + 100)
    ),
}
GATE_OF = {
    Verdict.BLURRED: "focus",
    Verdict.MOVING: "stillness",
    Verdict.SATURATED: "clipped_share",
}


@pytest.mark.parametrize("verdict", BAD, ids=lambda v: v.name)
def test_a_refused_field_gives_nothing(model: Model, verdict: Verdict) -> None:
    with Session(model, MPP) as session:
        result = session.add(BAD[verdict])
        assert result.verdict is verdict
        number = measure(result, GATE_OF[verdict])
        assert not number.passed
        assert np.isfinite(number.threshold)
        session._store.flush()
        assert not session._store.instances()
        assert not session._store.parts()
        assert not session.coverage_map().values.size
        good = session.add(SHARP)
        assert good.verdict is Verdict.ACCEPTED
        with Session(model, MPP) as clean:
            assert clean.add(SHARP).score == good.score


def test_every_gate_says_its_number_when_it_passes(model: Model) -> None:
    with Session(model, MPP) as session:
        result = session.add(SHARP)
    names = [m.name for m in result.measures]
    assert len(names) == len(set(names))
    assert {"clipped_share", "stillness", "focus", "tissue_share"} <= set(names)
    assert all(m.passed for m in result.measures)


def test_a_blurred_field_without_tissue_is_blank(model: Model) -> None:
    rng = np.random.default_rng(0)
    glass = cv2.GaussianBlur(rng.normal(238, 6, SHARP.pixels.shape), (0, 0), 5)
    with Session(model, MPP) as session:
        assert session.add(like(SHARP, glass)).verdict is Verdict.BLANK


def test_a_blurred_view_of_a_held_place_takes_nothing_away(model: Model) -> None:
    with Session(model, MPP) as session:
        first = session.add(SHARP)
        for verdict, frame in BAD.items():
            again = session.add(frame)
            assert again.verdict is verdict
            assert again.score == first.score
        assert session.status().revision == 1


def test_thresholds_are_fixed_when_the_session_is_opened(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP))
    assert session.settings.gates == GateSettings().as_json()
    session.add(SHARP)
    session.release()
    again = folder.open(session.session_id, lambda _: model)
    assert again.settings == session.settings
    assert again.add(BAD[Verdict.BLURRED]).verdict is Verdict.BLURRED
    again.release()


def test_the_frame_before_counts_only_when_it_was_just_taken_of_the_same_place(
    model: Model,
) -> None:
    def shown(frame: Frame, time_s: float) -> Frame:
        return dataclasses.replace(frame, capture_time_s=time_s)

    with Session(model, MPP) as session:
        there = dataclasses.replace(field(SLIDE, 108, 100, *SIZE), x_um=SHARP.x_um, y_um=SHARP.y_um)
        session.add(shown(SHARP, 100.0))
        slipped = session.add(shown(there, 100.2))
        assert measure(slipped, "displacement_px").value == pytest.approx(8, abs=1)
        for frame, time_s in (
            (SHARP, 101.0),
            (field(SLIDE, 200, 100, *SIZE), 101.1),
            (SHARP, 100.9),
            (SHARP, 0.0),
        ):
            result = session.add(shown(frame, time_s))
            assert "displacement_px" not in {m.name for m in result.measures}
