"""What every `Localizer` and every `InstanceMap` must do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_cases import CASES, LiveCase

from edge_mil.errors import FrameError, PositionError
from edge_mil.pipeline import Model
from edge_mil.session import Session
from edge_mil.session.instances.base import InstanceMap, Localizer, Placement
from edge_mil.session.instances.factory import open_instances
from edge_mil.store import SessionFile
from edge_mil.types import Frame, Verdict

FIELDS = range(6)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> LiveCase:
    return CASES[request.param]


@pytest.fixture
def model(case: LiveCase, tmp_path: Path) -> Iterator[Model]:
    loaded = case.model(tmp_path / "bundle")
    yield loaded
    loaded.close()


def opened(
    case: LiveCase, model: Model, store: SessionFile | None = None
) -> tuple[Localizer[Any], InstanceMap[Any]]:
    localizer, instances = open_instances(model, case.settings, None)
    if store is not None:
        localizer.restore(store)
        instances.restore(store, ())
    return localizer, instances


def read(case: LiveCase, model: Model, store: SessionFile, numbers: range) -> Session:
    session = Session(model, settings=case.settings, store=store)
    for number in numbers:
        assert session.add(case.frame(number)).verdict is Verdict.ACCEPTED
    return session


def placed(placement: Placement) -> tuple[object, ...]:
    return placement.x_um, placement.y_um, placement.verdict, placement.measures


def held(instances: InstanceMap[Any]) -> tuple[object, ...]:
    return instances.coverage(), dict(instances.shares()), dict(instances.focus())


def test_finding_a_position_changes_nothing(case: LiveCase, model: Model, tmp_path: Path) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), range(3))
    localizer = session._state.localizer
    once = localizer.locate(4, case.frame(3))
    localizer.locate(5, case.frame(5))
    assert placed(localizer.locate(4, case.frame(3))) == placed(once)
    session.release()


def test_a_position_is_found_again_after_a_restart(
    case: LiveCase, model: Model, tmp_path: Path
) -> None:
    store = SessionFile(tmp_path / "s.db")
    session = read(case, model, store, range(4))
    localizer, _ = opened(case, model, store)
    assert placed(localizer.locate(5, case.frame(4))) == placed(
        session._state.localizer.locate(5, case.frame(4))
    )
    session.release()


def test_a_frame_that_cannot_have_a_position_is_refused_in_one_sentence(
    case: LiveCase, model: Model
) -> None:
    localizer, _ = opened(case, model)
    localizer.check(case.frame(0))
    with pytest.raises(PositionError, match=r"^The (field|session) [^\n]+\.$"):
        localizer.check(case.wrong)


def test_a_placement_without_a_position_says_why_and_keeps_nothing(tmp_path: Path) -> None:
    case = CASES["cells without a stage"]
    model = case.model(tmp_path / "bundle")
    localizer, _ = open_instances(model, case.settings, None)
    glass = Frame(np.full((192, 256, 3), 240, np.uint8))
    placement = localizer.locate(1, glass)
    assert placement.verdict is Verdict.BLANK
    assert placement.measures
    assert (placement.key_frames, placement.located, placement.meta) == ((), None, {})
    model.close()


def test_planning_changes_nothing(case: LiveCase, model: Model, tmp_path: Path) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), range(3))
    localizer, instances = session._state.localizer, session._state.instances
    before, frame = held(instances), case.frame(3)
    placement = localizer.locate(4, frame)
    once = instances.plan(4, frame, placement)
    instances.plan(5, case.frame(5), localizer.locate(5, case.frame(5)))
    again = instances.plan(4, frame, placement)
    assert held(instances) == before
    assert (again.verdict, again.added, again.held) == (once.verdict, once.added, once.held)
    assert np.array_equal(again.tiles, once.tiles)
    assert len(once.tiles) == len(once.changes.rows)
    session.release()


def test_what_is_committed_is_not_planned_again(
    case: LiveCase, model: Model, tmp_path: Path
) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), range(2))
    localizer, instances = session._state.localizer, session._state.instances
    plan = instances.plan(3, case.frame(1), localizer.locate(3, case.frame(1)))
    assert (plan.verdict, plan.added, plan.improved) == (Verdict.DUPLICATE, 0, 0)
    assert plan.held > 0
    session.release()


def test_a_removed_field_can_be_counted_again(case: LiveCase, model: Model, tmp_path: Path) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), range(3))
    before = session.status().instances
    session.remove(2)
    without = session.status().instances
    assert without < before
    # Cells that joined pixels of several fields need those other fields again too.
    assert session.add(case.frame(1)).cells_added > 0
    assert without < session.status().instances <= before
    session.release()


def test_a_restart_holds_what_was_held(case: LiveCase, model: Model, tmp_path: Path) -> None:
    store = SessionFile(tmp_path / "s.db")
    session = read(case, model, store, range(5))
    instances = session._state.instances
    size = case.frame(0)
    _, again = open_instances(model, case.settings, (size.height_px, size.width_px))
    again.restore(store, ())
    assert held(again) == held(instances)
    for sequence in (2, 4):
        ours, theirs = again.remove(sequence), instances.remove(sequence)
        assert set(ours.dropped) == set(theirs.dropped)
        assert (ours.kinds, ours.touched) == (theirs.kinds, theirs.touched)
    assert held(again) == held(instances)
    session.release()


def test_instances_have_one_order_whatever_the_order_of_arrival(
    case: LiveCase, model: Model, tmp_path: Path
) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), FIELDS)
    instances = session._state.instances
    keys = list(instances.focus()) or list(instances.shares())
    order, backwards = instances.order(keys), instances.order(keys[::-1])
    assert len(set(order.keys)) == len(keys) > 1
    assert backwards.keys == order.keys[::-1]
    assert np.array_equal(backwards.cells, order.cells[::-1])
    session.release()


def test_instances_lie_apart_on_the_slide(case: LiveCase, model: Model, tmp_path: Path) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), FIELDS)
    instances = session._state.instances
    found = [instances.extent(key) for key in instances.shares()]
    regions = [region for region in found if region is not None]
    if case.settings.independent:
        assert regions == []
    for a, b in itertools.combinations(regions, 2):
        apart_x = abs(a.x_um - b.x_um) >= a.width_um - 1e-9
        apart_y = abs(a.y_um - b.y_um) >= a.height_um - 1e-9
        assert apart_x or apart_y
    session.release()


def test_a_frame_of_another_size_is_refused_where_sizes_must_agree(
    case: LiveCase, model: Model, tmp_path: Path
) -> None:
    session = read(case, model, SessionFile(tmp_path / "s.db"), range(1))
    frame = case.frame(1)
    smaller = Frame(frame.pixels[:-8].copy(), frame.x_um, frame.y_um, frame.location_id)
    if case.settings.independent:
        session._state.instances.check(smaller)
    else:
        with pytest.raises(FrameError, match="binning or region"):
            session._state.instances.check(smaller)
    session.release()
