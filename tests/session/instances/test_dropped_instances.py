"""Instances that leave the bag with a later field: folded again from the store, in one step."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from losing_instances import LosingInstances
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import SlideScore

SLIDE = painted()
SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b", channels=2))
    yield loaded
    loaded.close()


@pytest.fixture
def folder(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionFolder:
    monkeypatch.setattr("edge_mil.session.restore.open_instances", LosingInstances.open)
    return SessionFolder(tmp_path / "state")


def folded_again(model: Model, session: Session) -> SlideScore | None:
    """Score every stored instance at once."""
    rows = [r for r in session._store.instances() if r.features]
    if not rows:
        return None
    features = np.stack([np.frombuffer(r.features or b"", "<f4") for r in rows])
    aggregator = model.aggregator
    return aggregator.score(aggregator.update(aggregator.initial_state(), model.attend(features)))


def agree(found: SlideScore | None, wanted: SlideScore | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return found.instances == wanted.instances and np.allclose(
        found.logits, wanted.logits, rtol=0, atol=1e-5
    )


def test_a_dropped_instance_leaves_the_bag_in_the_step_of_the_field_that_drops_it(
    model: Model, folder: SessionFolder
) -> None:
    session = folder.create(model, SessionSettings(mpp=MPP))
    first = session.add(field(SLIDE, 0, 0))
    session.add(field(SLIDE, 192, 0))
    third = session.add(LosingInstances.frame(SLIDE, 384, 0, drops=("0:0", "1:0"), owner=1))
    session._store.flush()
    assert {r.instance_key for r in session._store.instances(1)} == {"2:0", "0:1", "1:1", "2:1"}
    assert agree(third.score, folded_again(model, session))
    assert first.score is not None
    assert third.score is not None
    assert third.score.instances == 16
    before = session.status()
    session.release()
    again = folder.open(session.session_id, lambda _: model)
    assert again.status() == before
    assert again.add(field(SLIDE, 0, 0), sequence=1).score == first.score
    again.release()


def test_a_field_that_loses_all_its_instances_leaves_the_bag(
    model: Model, folder: SessionFolder
) -> None:
    session = folder.create(model, SessionSettings(mpp=MPP))
    session.add(field(SLIDE, 0, 0))
    mine = tuple(r.instance_key for r in session._store.instances(1))
    last = session.add(LosingInstances.frame(SLIDE, 384, 0, drops=mine, owner=1))
    assert last.fields_held == 1
    assert agree(last.score, folded_again(model, session))
    assert [s for s, _ in session._store.states()] == [2]
    session.release()


def test_a_killed_process_leaves_all_of_a_step_or_nothing(
    model: Model, folder: SessionFolder, tmp_path: Path
) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from losing_instances import LosingInstances
        from painted_field import MPP, field, painted
        import edge_mil.session.restore as session_module
        from edge_mil.bundle import open_bundle
        from edge_mil.pipeline import load_model
        from edge_mil.session import SessionFolder, SessionSettings

        session_module.open_instances = LosingInstances.open
        model = load_model(open_bundle(Path(sys.argv[1])), threads=1)
        session = SessionFolder(Path(sys.argv[2])).create(model, SessionSettings(mpp=MPP))
        slide = painted(6400, 128)
        for sequence in range(1, 10_000):
            frame = LosingInstances.frame(slide, 192 * (sequence % 32), 0)
            if sequence > 1:
                place = f"{3 * ((sequence - 1) % 32)}:0"
                frame = LosingInstances.frame(
                    slide, 192 * (sequence % 32), 0, drops=(place,), owner=sequence - 1
                )
            session.submit(sequence, frame)[1].add_done_callback(
                lambda _, s=sequence: print(s, flush=True)
            )
        """
    )
    for acknowledged in (3, 11):
        state = tmp_path / f"state{acknowledged}"
        with subprocess.Popen(
            [sys.executable, "-c", script, str(model.bundle.path), str(state)],
            cwd=SUPPORT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            said = [int(child.stdout.readline()) for _ in range(acknowledged)]
            child.kill()
            said += [int(line) for line in child.stdout.read().split()]
        opened = SessionFolder(state)
        session = opened.open(opened.ids()[0], lambda _: model)
        stored = session.status().durable_sequence
        assert stored >= max(said)
        assert agree(session.score(), folded_again(model, session))
        aggregator = model.aggregator
        for sequence, state_bytes in session._store.states():
            rows = [r for r in session._store.instances(sequence) if r.features]
            assert aggregator.instances(aggregator.from_bytes(state_bytes)) == len(rows)
            # Each field but the newest lost the one place that the next field dropped.
            assert len(rows) == (6 if sequence == stored else 5) or sequence > 32
        session.release()
