"""A session over real graphs and a real file: live equals batch, counted once, nothing lost."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.errors import (
    BundleError,
    FrameError,
    PixelSizeError,
    PositionError,
    SequenceError,
    SessionClosedError,
    SessionNotFoundError,
    UsageError,
)
from edge_mil.imaging import GridGeometry, resample_cell
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame, SlideScore, Verdict

SLIDE = painted()
GRID = [(x, y) for y in (0, 100, 200, 320) for x in (0, 150, 300, 448)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b", channels=2))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def field_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    bundle = write_small_bundle(tmp_path_factory.mktemp("field") / "b", instances="field")
    loaded = load_model(bundle)
    yield loaded
    loaded.close()


def close_to(found: SlideScore | None, wanted: SlideScore | None) -> bool:
    assert found is not None
    assert wanted is not None
    assert found.instances == wanted.instances
    return bool(np.allclose(found.logits, wanted.logits, rtol=0, atol=1e-5))


def batch_score(model: Model) -> SlideScore:
    """Score every complete cell of the slide at once, without a session."""
    geometry = GridGeometry(MPP, 64, 64, 0.5)
    tiles = [
        resample_cell(SLIDE[j * 64 : j * 64 + 64, i * 64 : i * 64 + 64], geometry, i, j)
        for j, i in itertools.product(range(7), range(10))
    ]
    batch = model.attend(model.extract(np.stack(tiles)))
    aggregator = model.aggregator
    return aggregator.score(aggregator.update(aggregator.initial_state(), batch))


def test_a_live_score_is_that_of_the_whole_bag_in_any_order(model: Model) -> None:
    wanted = batch_score(model)
    for seed in range(3):
        order = random.Random(seed).sample(GRID, len(GRID))
        with Session(model, MPP) as session:
            for x, y in order:
                assert session.add(field(SLIDE, x, y)).verdict is Verdict.ACCEPTED
            assert close_to(session.score(), wanted)
            assert session.status().coverage == 1.0


def test_staring_at_one_field_does_not_move_the_score(model: Model) -> None:
    with Session(model, MPP) as session:
        first = session.add(field(SLIDE, 100, 100))
        for _ in range(30):
            again = session.add(field(SLIDE, 100, 100))
            assert again.verdict is Verdict.DUPLICATE
            assert again.score == first.score
        assert session.status().revision == 1


def test_glass_is_blank_and_gives_no_score(model: Model) -> None:
    with Session(model, MPP) as session:
        result = session.add(Frame(np.full((128, 192, 3), 242, np.uint8), 96.0, 64.0))
        assert result.verdict is Verdict.BLANK
        assert result.score is None
        assert session.score() is None


def test_pixels_of_a_blank_field_complete_a_cell_whose_other_part_is_tissue(model: Model) -> None:
    slide = np.full((128, 256, 3), 242, np.uint8)
    slide[:, :40] = SLIDE[:128, :40]
    with Session(model, MPP) as session:
        blank = session.add(field(slide, 50, 0, 192, 128))
        assert blank.verdict is Verdict.BLANK
        rest = session.add(field(slide, 0, 0, 192, 128))
        assert (rest.verdict, rest.cells_added) == (Verdict.ACCEPTED, 2)


OPERATIONS = st.lists(
    st.one_of(
        st.sampled_from(GRID).map(lambda at: ("add", at)),
        st.integers(1, 8).map(lambda number: ("remove", number)),
        st.just(("reopen", None)),
    ),
    min_size=1,
    max_size=10,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations=OPERATIONS)
def test_any_history_survives_a_restart_to_the_bit(
    operations: list[tuple[str, object]], model: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = SessionFolder(tmp_path_factory.mktemp("state"))
    session = folder.create(model, SessionSettings(mpp=MPP))
    try:
        for kind, what in operations:
            if kind == "add":
                session.add(field(SLIDE, *what))  # type: ignore[misc]
            elif kind == "remove":
                if what <= session.status().last_sequence:  # type: ignore[operator]
                    session.remove(what, "test")  # type: ignore[arg-type]
            else:
                before = session.status()
                session.release()
                session = folder.open(session.session_id, lambda _: model)
                assert session.status() == before
        status = session.status()
        aggregator, records = model.aggregator, session._store.instances()
        state = aggregator.initial_state()
        rows = [np.frombuffer(r.features, "<f4") for r in records if r.features]
        assert len({r.instance_key for r in records}) == len(records)
        if rows:
            state = aggregator.update(state, model.attend(np.stack(rows)))
            assert close_to(status.score, aggregator.score(state))
        else:
            assert status.score is None
    finally:
        session.release()


def test_a_removed_field_can_be_seen_again(model: Model) -> None:
    with Session(model, MPP) as session:
        for x, y in GRID:
            session.add(field(SLIDE, x, y))
        full = session.score()
        session.remove(6, "debris")
        gone = session.status()
        assert gone.score is not None
        assert full is not None
        assert gone.score.instances < full.instances
        for x, y in GRID:
            session.add(field(SLIDE, x, y))
        assert close_to(session.score(), full)
        assert session.fields()[5].removed


def test_a_repeated_number_is_answered_as_before_and_folds_nothing(model: Model) -> None:
    with Session(model, MPP) as session:
        first = session.add(field(SLIDE, 0, 0), sequence=7)
        second = session.add(field(SLIDE, 150, 0), sequence=9)
        assert session.add(field(SLIDE, 0, 0), sequence=7).score == first.score
        with pytest.raises(SequenceError, match="used for another field"):
            session.add(field(SLIDE, 300, 0), sequence=7)
        status = session.status()
        assert status.score == second.score
        assert (status.durable_sequence, status.durable_beyond) == (0, (7, 9))


def test_malformed_fields_are_errors_and_the_session_goes_on(model: Model) -> None:
    with Session(model, MPP) as session:
        session.add(field(SLIDE, 0, 0))
        with pytest.raises(FrameError, match="64 x 64 px and this session's fields are 192 x 128"):
            session.add(field(SLIDE, 0, 0, 64, 64))
        with pytest.raises(PositionError, match="no stage position"):
            session.add(Frame(field(SLIDE, 0, 0).pixels))
        assert session.add(field(SLIDE, 150, 0)).verdict is Verdict.ACCEPTED
        session.close()
        with pytest.raises(SessionClosedError):
            session.add(field(SLIDE, 300, 0))


def test_a_pixel_size_is_never_guessed(model: Model, field_model: Model) -> None:
    with pytest.raises(PixelSizeError, match="unknown"):
        Session(model)
    with pytest.raises(PixelSizeError, match="stronger objective"):
        Session(model, 1.0)
    with pytest.raises(PixelSizeError, match="objective"):
        Session(field_model, 0.7)
    with pytest.raises(UsageError, match="independent"):
        Session(model, settings=SessionSettings(mpp=MPP, independent=True))


def test_influence_is_the_score_less_the_score_without(model: Model) -> None:
    with Session(model, MPP) as session:
        for x, y in GRID:
            session.add(field(SLIDE, x, y))
        full = session.score()
        top = session.top_fields(3, "positive")
        heat = session.influence_map("positive")
        assert heat.values.shape == (7, 10)
        assert np.isfinite(heat.values).all()
        assert sum(record.attention_share for record in session.fields()) == pytest.approx(1)
        strongest = top[0]
        # Field and cells of the strongest: taken out for real.
        rows = session._store.instances(strongest.sequence)
        others = [r for r in session._store.instances() if r.sequence != strongest.sequence]
        features = np.stack([np.frombuffer(r.features or b"", "<f4") for r in others])
        aggregator = model.aggregator
        without = aggregator.score(
            aggregator.update(aggregator.initial_state(), model.attend(features))
        )
        assert full is not None
        assert strongest.influence == pytest.approx(full.logits[1] - without.logits[1], abs=1e-5)
        assert strongest.cells == len(rows)
        assert session.thumbnail(strongest.sequence)[:2] == b"\xff\xd8"


def test_whole_fields_count_once_whatever_the_order(field_model: Model) -> None:
    shots = [field(SLIDE, x, y) for x, y in GRID]
    scores = []
    for seed in range(3):
        with Session(field_model, MPP) as session:
            for frame in random.Random(seed).sample(shots, len(shots)):
                session.add(frame)
            scores.append(session.score())
    assert close_to(scores[1], scores[0])
    assert close_to(scores[2], scores[0])


def test_the_next_best_field_of_a_slot_comes_back_when_the_best_is_removed(
    field_model: Model, tmp_path: Path
) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(field_model, SessionSettings(mpp=MPP))
    exact = field(SLIDE, 192, 0)
    # As soft as the gate lets pass, and a sharpness class lower.
    blurred = np.asarray(cv2.GaussianBlur(exact.pixels, (0, 0), 1.2), dtype=np.uint8)
    off = Frame(blurred, exact.x_um, exact.y_um)
    alone = session.add(off).score
    better = session.add(exact)
    assert (better.verdict, better.cells_improved) == (Verdict.ACCEPTED, 1)
    assert session.add(off).verdict is Verdict.DUPLICATE
    session.remove(2, "test")
    assert session.score() == alone
    session.release()
    again = folder.open(session.session_id, lambda _: field_model)
    assert again.score() == alone
    again.release()


def test_independent_fields_have_places_and_any_size(field_model: Model) -> None:
    with Session(field_model, settings=SessionSettings(mpp=MPP, independent=True)) as session:
        first = Frame(field(SLIDE, 0, 0).pixels, location_id="a.png")
        second = Frame(field(SLIDE, 0, 0, 300, 200).pixels, location_id="b.png")
        assert session.add(first).verdict is Verdict.ACCEPTED
        assert session.add(second).verdict is Verdict.ACCEPTED
        assert session.add(first).verdict is Verdict.DUPLICATE
        with pytest.raises(PositionError, match="no place"):
            session.add(Frame(first.pixels))
        assert session.status().instances == 2


def test_a_session_is_found_by_its_id_only(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP, slide_label="s1"))
    session.release()
    assert folder.ids() == [session.session_id]
    assert folder.summary(session.session_id).settings.slide_label == "s1"
    for name in ("../x", "", "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        with pytest.raises(SessionNotFoundError):
            folder.summary(name)
    with pytest.raises(PixelSizeError):
        folder.create(model, SessionSettings(mpp=3.0))
    assert folder.ids() == [session.session_id]


def test_a_session_does_not_go_on_with_another_bundle(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path / "state")
    session = folder.create(model, SessionSettings(mpp=MPP))
    session.release()
    other = load_model(write_small_bundle(tmp_path / "other", seed=5))
    with pytest.raises(BundleError, match="opened with bundle small"):
        folder.open(session.session_id, lambda _: other)
    # The refusal let the file go.
    folder.open(session.session_id, lambda _: model).release()


def test_what_was_acknowledged_survives_a_full_disk(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from painted_field import MPP, field, painted
        from small_bundle import write_small_bundle
        from edge_mil.errors import StoreError
        from edge_mil.pipeline import Model, load_model
        from edge_mil.session import SessionFolder, SessionSettings

        root = Path(sys.argv[1])
        model = load_model(write_small_bundle(root / "b"))
        folder = SessionFolder(root / "state")
        session = folder.create(model, SessionSettings(mpp=MPP))
        slide = painted(2048, 1024)
        score = session.add(field(slide, 0, 0)).score
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        added = 1
        try:
            for x in range(0, 1800, 100):
                for y in range(0, 800, 100):
                    score = session.add(field(slide, x, y)).score
                    added += 1
        except StoreError as error:
            assert "nothing that was acknowledged is lost" in str(error), error
        else:
            raise SystemExit("the disk was never full")
        session.release()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        again = folder.open(session.session_id, lambda _: model)
        status = again.status()
        assert status.durable_sequence == added, (status, added)
        assert status.score == score
        again.release()
        print("held", added)
        """
    )
    support = Path(__file__).parents[1] / "support"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=support,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("held")
