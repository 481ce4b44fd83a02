"""A place seen again, sharper or not: counted once, and as it was seen best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame, UInt8Array, Verdict

SLIDE = painted()
SOFT = np.asarray(cv2.GaussianBlur(SLIDE, (0, 0), 1.1), np.uint8)
"""As soft as the gate lets pass."""
PASS = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b", channels=2))
    yield loaded
    loaded.close()


def noisy(slide: UInt8Array, x: int, y: int, rng: np.random.Generator, sd: float) -> Frame:
    frame = field(slide, x, y)
    noise = rng.normal(0, sd, frame.pixels.shape)
    pixels = np.clip(np.rint(frame.pixels + noise), 0, 255).astype(np.uint8)
    return dataclasses.replace(frame, pixels=pixels)


def test_a_sharper_pass_takes_the_place_of_a_soft_one(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    with Session(model, MPP) as clean:
        wanted = [clean.add(field(SLIDE, x, y)) for x, y in PASS][-1].score
    session = folder.create(model, SessionSettings(mpp=MPP))
    soft = [session.add(field(SOFT, x, y)) for x, y in PASS]
    assert {r.verdict for r in soft} == {Verdict.ACCEPTED}
    sharp = [session.add(field(SLIDE, x, y)) for x, y in PASS]
    assert sum(r.cells_improved for r in sharp) > 0
    assert {r.cells_added for r in sharp} == {0}
    assert wanted is not None
    found = session.score()
    assert found is not None
    assert found.instances == wanted.instances == 70
    # Cells that a field shows only in part stay as they were: most, not all, are sharp now.
    before = soft[-1].score
    assert before is not None
    assert abs(found.logits[1] - wanted.logits[1]) < 0.5 * abs(before.logits[1] - wanted.logits[1])
    status, focus = session.status(), session.focus_map()
    session.release()
    again = folder.open(session.session_id, lambda _: model)
    assert again.status() == status
    assert np.array_equal(again.focus_map().values, focus.values)
    assert again.add(field(SLIDE, *PASS[0])).verdict is Verdict.DUPLICATE
    for x, y in PASS:
        assert again.add(field(SOFT, x, y)).verdict is Verdict.DUPLICATE
    assert again.score() == found
    again.release()


def test_an_improved_cell_goes_with_the_field_that_improved_it(model: Model) -> None:
    with Session(model, MPP) as session:
        session.add(field(SOFT, 0, 0))
        soft = session.add(field(SOFT, 192, 0)).score
        better = session.add(field(SLIDE, 0, 0))
        assert (better.verdict, better.cells_improved) == (Verdict.ACCEPTED, 6)
        assert session.remove(1).score == better.score
        session.remove(3)
        assert session.status().instances == 6
        session.add(field(SOFT, 0, 0))
        found = session.score()
        assert found is not None
        assert soft is not None
        assert np.allclose(found.logits, soft.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sd", [0.0, 3.0])
def test_a_stare_swaps_nothing(model: Model, sd: float) -> None:
    rng = np.random.default_rng(5)
    with Session(model, MPP) as session:
        first = session.add(noisy(SLIDE, 100, 100, rng, sd))
        for _ in range(300):
            result, _ = session.submit(
                session.status().last_sequence + 1, noisy(SLIDE, 100, 100, rng, sd)
            )
            assert (result.verdict, result.cells_improved) == (Verdict.DUPLICATE, 0)
        assert session.score() == first.score
        assert session.status().revision == 1


def test_soft_and_sharp_frames_in_turn_settle_at_once(model: Model) -> None:
    rng = np.random.default_rng(6)
    with Session(model, MPP) as session:
        session.add(noisy(SOFT, 128, 128, rng, 3.0))
        assert session.add(noisy(SLIDE, 128, 128, rng, 3.0)).cells_improved == 6
        for slide in (SOFT, SLIDE) * 10:
            assert session.add(noisy(slide, 128, 128, rng, 3.0)).verdict is Verdict.DUPLICATE


def test_a_clean_slide_is_never_improved_in_any_order(model: Model) -> None:
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(PASS))
        with Session(model, MPP) as session:
            for _ in range(2):
                results = [session.add(field(SLIDE, *PASS[n])) for n in order]
                assert not any(r.cells_improved for r in results)
