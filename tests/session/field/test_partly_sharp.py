"""Half a field may be sharp: its cells are used and the blurred ones are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.imaging import TissueTest
from edge_mil.imaging.quality.cell_focus import CellFocus
from edge_mil.imaging.quality.gate import GateSettings
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import FieldResult, Frame, UInt8Array, Verdict

SIZE = (1024, 512)
SHARP = field(painted(*SIZE, seed=2), 0, 0, *SIZE)
BLUR_PX = 5.0


def blurred_from(frame: Frame, column: int) -> Frame:
    """Return the frame out of focus from a column on."""
    pixels = frame.pixels.copy()
    pixels[:, column:] = cv2.GaussianBlur(frame.pixels, (0, 0), BLUR_PX)[:, column:]
    return dataclasses.replace(frame, pixels=pixels)


HALF = blurred_from(SHARP, SIZE[0] // 2)
WHOLE = blurred_from(SHARP, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b"))
    yield loaded
    loaded.close()


def left_out(result: FieldResult) -> float:
    return sum(m.value for m in result.measures if m.name == "blurred_cells")


def numbers(result: FieldResult) -> list[tuple[str, float]]:
    return [(m.name, m.value) for m in result.measures]


def columns_held(session: Session) -> set[int]:
    session._store.flush()
    return {int(row.instance_key.split(":")[0]) for row in session._store.instances()}


def test_the_sharp_half_of_a_field_is_used(model: Model) -> None:
    with Session(model, MPP) as session:
        whole = session.add(SHARP)
        columns = columns_held(session)
        assert left_out(whole) == 0
    with Session(model, MPP) as session:
        result = session.add(HALF)
        assert result.verdict is Verdict.ACCEPTED
        assert result.cells_added + left_out(result) == whole.cells_added
        assert 0.3 < result.cells_added / whole.cells_added < 0.7
        held = columns_held(session)
        assert held == {column for column in columns if column <= max(held)}
        # The next field brings what was left out, and nothing is counted twice.
        again = session.add(SHARP)
        assert again.verdict is Verdict.ACCEPTED
        assert session.status().instances == whole.cells_added


def test_a_field_that_is_blurred_all_over_gives_nothing(model: Model) -> None:
    with Session(model, MPP) as session:
        assert session.add(WHOLE).verdict is Verdict.BLURRED
        session._store.flush()
        assert not session._store.parts()
        assert session.score() is None


def test_a_blurred_half_over_held_cells_is_a_duplicate_at_most(model: Model) -> None:
    with Session(model, MPP) as session:
        first = session.add(SHARP)
        again = session.add(HALF)
        assert again.verdict in (Verdict.DUPLICATE, Verdict.BLURRED)
        assert again.score == first.score


def test_a_restart_leaves_the_same_cells_out(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP))
    result = session.add(HALF)
    score, held = session.score(), columns_held(session)
    session.release()
    session = folder.open(session.session_id, lambda _: model)
    assert session.score() == score
    assert columns_held(session) == held
    replayed = session.add(HALF, sequence=result.sequence)
    assert replayed.cells_added == result.cells_added
    assert numbers(replayed) == numbers(result)
    # Sent under another number it is judged again, and alike.
    fresh = session.add(HALF)
    assert left_out(fresh) == left_out(result)
    assert session.score() == score
    session.release()


def test_thresholds_of_an_earlier_release_judge_the_field_as_a_whole() -> None:
    old = GateSettings.from_session({"min_focus": -1.0})
    for blurred in (True, False):
        focus = cell_focus(HALF.pixels, old, blurred=blurred)
        assert {focus.is_blurred(x, 0, x + 224, 224) for x in (0, 400, 800)} == {blurred}


def test_a_cell_is_judged_by_its_own_part_of_the_field() -> None:
    for blurred in (True, False):
        focus = cell_focus(HALF.pixels, GateSettings(), blurred=blurred)
        assert not focus.is_blurred(0, 0, 224, 224)
        assert focus.is_blurred(800, 288, 1024, 512)
        # A box that reaches beyond the field is judged by what lies beside it.
        assert focus.is_blurred(1000, 400, 1224, 624)


def test_a_cell_with_too_little_tissue_follows_its_field() -> None:
    glass = np.full((512, 512, 3), 240, np.uint8)
    glass[:8, :8] = 100
    for blurred in (True, False):
        focus = cell_focus(glass, GateSettings(), blurred=blurred)
        assert focus.is_blurred(0, 0, 224, 224) is blurred


def cell_focus(pixels: UInt8Array, settings: GateSettings, *, blurred: bool) -> CellFocus:
    return CellFocus(
        pixels,
        TissueTest(),
        min_focus=settings.min_focus,
        doubt=settings.cell_doubt,
        min_contrast=settings.min_contrast,
        blurred=blurred,
    )
