"""One field in place of another: as if the old one had been removed and the new one sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.errors import FrameError, NotThereYetError, SequenceError
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame, Verdict

SLIDE = painted()
# Fields that share cells with their neighbours, and two of one place.
SHOTS = [
    field(SLIDE, x, y) for x, y in ((0, 0), (150, 0), (300, 0), (0, 100), (150, 100), (150, 0))
]
BETTER = field(SLIDE, 140, 10)


@pytest.fixture(scope="module", params=["grid", "field"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp(request.param) / "b"
    loaded = load_model(write_small_bundle(folder, channels=2, instances=request.param))
    yield loaded
    loaded.close()


def filled(model: Model) -> Session:
    session = Session(model, MPP)
    for shot in SHOTS:
        session.add(shot)
    return session


@pytest.mark.parametrize("old", range(1, len(SHOTS) + 1))
def test_the_score_is_that_of_a_removal_and_a_new_field(model: Model, old: int) -> None:
    with filled(model) as wanted, filled(model) as found:
        wanted.remove(old)
        expected = wanted.add(BETTER, 9)
        result, durable = found.submit(9, BETTER, replaces=old)
        durable.result()
        assert (result.verdict, result.score) == (expected.verdict, expected.score)
        assert result.coverage == expected.coverage
        assert [r.cells for r in found.fields()] == [r.cells for r in wanted.fields()]
        assert [r.sequence for r in found.fields() if r.removed] == [old]
        # What comes after is counted the same too.
        assert found.add(SHOTS[old - 1], 10).score == wanted.add(SHOTS[old - 1], 10).score


def test_it_is_one_durable_step(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP))
    for shot in SHOTS:
        session.add(shot)
    _, durable = session.submit(9, BETTER, replaces=2)
    durable.result()
    score = session.score()
    session.release()
    again = folder.open(session.session_id, lambda _: model)
    assert again.score() == score
    assert [r.sequence for r in again.fields() if r.removed] == [2]
    again.release()


def black() -> Frame:
    return Frame(np.zeros_like(BETTER.pixels), BETTER.x_um, BETTER.y_um)


def test_a_field_that_is_refused_or_fails_leaves_the_old_one(model: Model) -> None:
    with filled(model) as session, filled(model) as untouched:
        before = session.score()
        result, durable = session.submit(9, black(), replaces=2)
        durable.result()
        assert result.verdict is Verdict.SATURATED
        with pytest.raises(FrameError):
            session.submit(10, field(SLIDE, 0, 0, 64, 64), replaces=2)
        assert session.score() == before
        assert not any(record.removed for record in session.fields())
        assert session.add(BETTER, 11).score == untouched.add(BETTER, 11).score


def test_there_must_be_a_field_to_replace(model: Model) -> None:
    with filled(model) as session:
        for number in (7, 2**64 - 1):
            with pytest.raises(SequenceError, match="no field"):
                session.submit(9, BETTER, replaces=number)
        session.remove(2)
        result, durable = session.submit(9, BETTER, replaces=2)  # it left before: nothing more does
        durable.result()
        assert result.sequence == 9


def test_fields_that_were_found_by_their_images_are_not_replaced(tmp_path: Path) -> None:
    model = load_model(write_small_bundle(tmp_path / "b"))
    with Session(model, settings=SessionSettings(mpp=MPP, stage=False)) as session:
        session.add(Frame(SHOTS[0].pixels))
        with pytest.raises(NotThereYetError, match="RemoveField"):
            session.submit(2, Frame(SHOTS[1].pixels), replaces=1)
    model.close()
