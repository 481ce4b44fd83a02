"""A session compares its stage with the images: named, held, released, equal after a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_bundle import write_small_bundle
from textured_slide import textured_slide, with_noise

from edge_mil.bundle import Bundle
from edge_mil.cameras.scan_plan import serpentine
from edge_mil.errors import PositionError, SessionStateError
from edge_mil.session import Session, SessionSettings
from edge_mil.store import SessionFile
from edge_mil.types import CheckState, FieldResult, Frame, UInt8Array, Verdict

MPP = 0.5
FIELD = (256, 192)
WIDTH, HEIGHT = 900, 700
SLIDE, OTHER = textured_slide(WIDTH, HEIGHT), textured_slide(WIDTH, HEIGHT, seed=9)
PLACES = serpentine(WIDTH, HEIGHT, *FIELD, 0.1)
UNLOCATED, AGREES, CONTRADICTED = Verdict.UNLOCATED, CheckState.AGREES, CheckState.CONTRADICTED

Stage = Callable[[float, float], tuple[float, float]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small", mpp=MPP)


def right(x: float, y: float) -> tuple[float, float]:
    return x, y


def frame(
    place: tuple[int, int], stage: Stage = right, slide: UInt8Array = SLIDE, deviation: float = 0.0
) -> Frame:
    x, y = place
    pixels = np.ascontiguousarray(slide[y : y + FIELD[1], x : x + FIELD[0]])
    at = stage((x + FIELD[0] / 2) * MPP, (y + FIELD[1] / 2) * MPP)
    return Frame(with_noise(pixels, deviation, 7000 * x + y), *at)


def read(session: Session, stage: Stage) -> tuple[list[FieldResult], int]:
    """Send a pass; return the answers, and after how many fields it was held."""
    answers, noticed = [], 0
    for place in PLACES:
        answers.append(session.add(frame(place, stage)))
        if not noticed and session.status().geometry.held:
            noticed = len(answers)
    return answers, noticed


FAULTS: dict[str, tuple[Stage, str]] = {
    "x flipped": (lambda x, y: (-x, y), "x-flipped"),
    "y flipped": (lambda x, y: (x, -y), "y-flipped"),
    "exchanged": (lambda x, y: (y, x), "exchanged"),
    "another pixel size": (lambda x, y: (x / 2, y / 2), "pixel-size"),
    "5 % of scale": (lambda x, y: (x * 1.05, y * 1.05), "pixel-size"),
    "millimetres": (lambda x, y: (x / 1000, y / 1000), "units"),
    "tenths of a micrometre": (lambda x, y: (x * 10, y * 10), "units"),
    "turned by 20 degrees": (lambda x, y: (0.94 * x - 0.34 * y, 0.34 * x + 0.94 * y), "rotation"),
}


@pytest.mark.parametrize(("stage", "cause"), FAULTS.values(), ids=FAULTS.keys())
def test_a_wrong_stage_holds_the_session_and_is_named(
    stage: Stage, cause: str, bundle: Bundle
) -> None:
    with Session(bundle, MPP) as session:
        answers, noticed = read(session, stage)
        status = session.status()
        suspects = [record.sequence for record in session.fields() if record.suspect]
    assert (status.geometry.state, status.geometry.cause) == (CONTRADICTED, cause)
    assert 0 < noticed <= 8
    # From there on every field is refused, in the counts of the session, and says why.
    after = answers[noticed - 1 :]
    assert {answer.verdict for answer in after} == {UNLOCATED}
    assert {answer.explanation for answer in after} == {status.geometry.sentence}
    assert {answer.geometry for answer in after} == {"contradicted"}
    assert status.verdicts[UNLOCATED] >= len(after)
    assert status.score == answers[noticed - 1].score
    assert suspects == list(range(1, noticed))


@pytest.mark.parametrize("deviation", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_good_stage_is_proven_and_never_accused(
    seed: int, deviation: float, bundle: Bundle
) -> None:
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(PLACES)) if seed else range(len(PLACES))
    with Session(bundle, MPP) as session:
        for n in order:
            error = chance.normal(0, deviation, 2)
            at: Stage = lambda x, y, e=error: (x + e[0], y + e[1])  # type: ignore[misc] # noqa: E731
            answer = session.add(frame(PLACES[n], at, deviation=deviation))
            assert answer.verdict is not UNLOCATED
        status = session.status()
    assert status.geometry.state is AGREES
    assert status.slide.state is AGREES
    assert not status.geometry.cause


def test_without_overlap_the_stage_stays_unproven_and_says_so(bundle: Bundle) -> None:
    with Session(bundle, MPP) as session:
        for place in serpentine(WIDTH - WIDTH % FIELD[0], HEIGHT - HEIGHT % FIELD[1], *FIELD, 0.0):
            answer = session.add(frame(place, lambda x, y: (-x, y)))
            assert answer.geometry == "unproven"
        assert "overlap" in session.status().geometry.sentence


def test_a_person_who_insists_is_obeyed_and_the_state_still_says_it(bundle: Bundle) -> None:
    settings = SessionSettings(mpp=MPP, insist_geometry=True)
    with Session(bundle, settings=settings) as session:
        answers, noticed = read(session, lambda x, y: (-x, y))
        status = session.status()
    assert noticed == 0
    assert (status.geometry.state, status.geometry.held) == (CONTRADICTED, False)
    assert answers[-1].verdict is not UNLOCATED
    assert answers[-1].geometry == "contradicted"


def test_a_held_session_is_the_same_after_a_restart_and_goes_on_when_released(
    bundle: Bundle, tmp_path: Path
) -> None:
    stage: Stage = lambda x, y: (-x, y)  # noqa: E731
    with Session(bundle, MPP) as whole:
        expected, _ = read(whole, stage)
        status = whole.status()
    path, answers = tmp_path / "session.db", []
    for number, place in enumerate(PLACES, start=1):
        # Opened anew for each field: nothing but the file remembers.
        with Session(bundle, MPP, store=SessionFile(path)) as session:
            answers.append(session.add(frame(place, stage), number))
            again = session.status()
    assert [a.verdict for a in answers] == [a.verdict for a in expected]
    assert [a.geometry for a in answers] == [a.geometry for a in expected]
    assert (again.geometry, again.score) == (status.geometry, status.score)
    with Session(bundle, MPP, store=SessionFile(path)) as session:
        with pytest.raises(SessionStateError, match="settings are wrong"):
            session.release_hold("same-slide")
        assert not session.release_hold("insist").geometry.held
        assert session.add(frame((40, 40), stage)).verdict is not UNLOCATED
    with Session(bundle, MPP, store=SessionFile(path)) as session:
        assert (session.status().geometry.state, session.status().geometry.held) == (
            CONTRADICTED,
            False,
        )


def test_another_slide_holds_the_session_until_it_is_the_same_again(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "session.db"
    half = len(PLACES) // 2
    with Session(bundle, MPP, store=SessionFile(path)) as session:
        for place in PLACES[:half]:
            assert session.add(frame(place)).slide != "contradicted"
        before = session.status()
        assert before.geometry.state is AGREES
        seen = [session.add(frame(place, slide=OTHER)) for place in PLACES[half : half + 6]]
        held = session.status()
        assert (held.slide.state, held.slide.cause) == (CONTRADICTED, "other-slide")
        assert seen[-1].verdict is UNLOCATED
        assert "another slide" in seen[-1].explanation
        # Nothing of the other slide was counted where it should have looked like this one.
        assert held.score == before.score
    with Session(bundle, MPP, store=SessionFile(path)) as session:
        assert session.status().slide == held.slide
        released = session.release_hold("same-slide", "cleaned")
        assert not released.slide.held
        for place in PLACES[half:]:
            assert session.add(frame(place)).verdict is not UNLOCATED
        assert session.status().slide.state is AGREES
        with pytest.raises(SessionStateError, match="nothing to release"):
            session.release_hold("same-slide")


def test_a_slide_that_was_pushed_is_told_from_another_slide(bundle: Bundle) -> None:
    pushed: Stage = lambda x, y: (x + 40, y - 25)  # noqa: E731
    with Session(bundle, MPP) as session:
        for place in PLACES[:8]:
            session.add(frame(place))
        for x, y in PLACES[:8]:
            session.add(frame((min(x + 30, WIDTH - FIELD[0]), y), pushed))
        slide = session.status().slide
    assert slide.cause == "slide-moved"
    assert "(-40, +25)" in slide.sentence


@pytest.mark.parametrize("factor", [1e3, 2e3])
def test_positions_in_a_far_smaller_unit_are_named(bundle: Bundle, factor: float) -> None:
    """Nanometres, and a unit without a name: the largest of both lie within a metre."""
    with Session(bundle, MPP) as session:
        read(session, lambda x, y: (x * factor, y * factor))
        assert session.status().geometry.cause == "units"


@pytest.mark.parametrize("absurd", [1.1e6, 1e10, 1e300, -1e300])
def test_a_position_beyond_all_bounds_is_an_error_of_that_field(absurd: float) -> None:
    with pytest.raises(PositionError, match="send micrometres"):
        frame((0, 0), lambda x, y: (absurd, y))


def test_one_wrong_position_does_not_hold_a_session(bundle: Bundle) -> None:
    with Session(bundle, MPP) as session:
        for number, place in enumerate(PLACES):
            slip: Stage = (lambda x, y: (x + 60, y)) if number == 6 else right
            verdict = session.add(frame(place, slip)).verdict
            assert (verdict is UNLOCATED) == (number == 6)
        assert session.status().geometry.state is AGREES
