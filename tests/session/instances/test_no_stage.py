"""Sessions without a stage: counted once by the picture alone, durable, never silently wrong."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hand_moved import against_truth, read_by_hand, read_slide, read_tiled_tiff, tissue_of
from shared_data import shared
from small_bundle import write_small_bundle
from textured_slide import textured_slide, with_noise

from edge_mil.bundle import Bundle
from edge_mil.cameras.hand_path import hand_path
from edge_mil.errors import PositionError
from edge_mil.imaging.registration import FrameLocation, KeyFrame, KeyFrameLocalizer
from edge_mil.imaging.registration.pairwise import Registration
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.session import Session, SessionSettings
from edge_mil.session.instances import registration_localizer as found_survey
from edge_mil.store import InstanceKind, SessionFile
from edge_mil.types import FieldResult, Frame, UInt8Array, Verdict

MPP = 0.5
FIELD = (256, 192)
SLIDE = textured_slide(1400, 1100)
NO_STAGE = SessionSettings(mpp=MPP, stage=False)
PATH = hand_path(1400, 1100, *FIELD, 40, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small", mpp=MPP)


def field(x: int, y: int, deviation: float = 0.0) -> UInt8Array:
    pixels = np.ascontiguousarray(SLIDE[y : y + FIELD[1], x : x + FIELD[0]])
    return with_noise(pixels, deviation, 7000 * x + y)


def send(session: Session, path: list[tuple[int, int]]) -> list[FieldResult]:
    return [session.add(Frame(field(*place))) for place in path]


def measures(result: FieldResult) -> dict[str, float]:
    return {measure.name: measure.value for measure in result.measures}


def held(store: SessionFile) -> set[str]:
    store.flush()
    return {row.instance_key for row in store.instances() if row.kind is InstanceKind.HELD}


def test_a_hand_moved_slide_equals_a_perfect_stage(bundle: Bundle) -> None:
    reading = read_by_hand(SLIDE, PATH, FIELD, bundle, mpp=MPP, deviation=2.0)
    assert reading.verdicts[Verdict.UNLOCATED] == 0
    assert reading.truth.places == reading.clean
    assert (reading.truth.twice, reading.truth.astray) == (0, 0)
    assert reading.score_difference < 1e-4


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("deviation", [0.0, 3.0])
@pytest.mark.parametrize("size", [(512, 384), (1024, 768)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_real_slide_moved_by_hand_counts_every_place_once(
    seed: int, size: tuple[int, int], deviation: float, tmp_path: Path
) -> None:
    slide = read_slide(shared("data/slides/cmu1_small_region.svs"))
    bundle = write_small_bundle(tmp_path / "b", tile_px=224, mpp=0.499)
    path = hand_path(slide.shape[1], slide.shape[0], *size, 200, seed, tissue_of(slide))
    reading = read_by_hand(slide, path, size, bundle, mpp=0.499, deviation=deviation)
    truth = reading.truth
    assert truth.twice <= 0.02 * len(truth.places)
    assert truth.astray < 0.5
    assert truth.end_error < 0.5
    assert len(truth.places & reading.clean) >= 0.98 * len(reading.clean)


@pytest.mark.slow
@pytest.mark.shared
def test_another_real_slide_moved_by_hand_counts_every_place_once(tmp_path: Path) -> None:
    slide = read_tiled_tiff(shared("data/slides/os1_detail_he.ome.tif"))
    bundle = write_small_bundle(tmp_path / "b", tile_px=128, mpp=0.2271)
    path = hand_path(slide.shape[1], slide.shape[0], 320, 240, 200, 0, tissue_of(slide))
    reading = read_by_hand(slide, path, (320, 240), bundle, mpp=0.2271, deviation=3.0)
    assert reading.truth.twice == 0
    assert reading.truth.astray < 0.5
    assert reading.truth.end_error < 0.5


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    count = round(math.hypot(end[0] - start[0], end[1] - start[1]) / 60)
    steps = (np.linspace(start, end, count, endpoint=False)).round().astype(int)
    return [(int(x), int(y)) for x, y in steps]


CORNERS = [(500, 400), (900, 700), (1000, 400), (900, 150), (500, 400)]
CORNERS += [(150, 700), (50, 400), (150, 150), (500, 400), (520, 420)]
EIGHT = [place for ends in itertools.pairwise(CORNERS) for place in _line(*ends)]


class DriftingLocalizer(KeyFrameLocalizer):
    """Registers well, but for an error to the right per field, as through a distorting lens.

    Against key frames of long ago it registers without error: there the loop closes.
    """

    def __init__(self, size_px: tuple[int, int], push_px: float) -> None:
        super().__init__(size_px)
        self.push_px, self.now = push_px, 0

    def locate(self, sequence: int, pyramid: RegistrationPyramid) -> FrameLocation:
        self.now = sequence
        return super().locate(sequence, pyramid)

    def register(
        self, key: KeyFrame, pyramid: RegistrationPyramid, _: tuple[float, float] | None = None
    ) -> Registration | None:
        found = super().register(key, pyramid)
        if found is None or self.now - key.sequence > 12:
            return found
        return dataclasses.replace(found, dx=found.dx + self.push_px * (self.now - key.sequence))


@pytest.mark.parametrize(("push_px", "missing"), [(0.0, 0.0), (1.0, 0.02), (3.0, 0.05)])
def test_a_drifting_figure_of_eight_equals_one_clean_pass(
    push_px: float, missing: float, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifting = functools.partial(DriftingLocalizer, push_px=push_px)
    monkeypatch.setattr(found_survey, "KeyFrameLocalizer", drifting)
    store = SessionFile(tmp_path / "session.db")
    with Session(bundle, settings=NO_STAGE, store=store) as session:
        twice = 0.0
        for place in EIGHT:
            twice += measures(session.add(Frame(field(*place)))).get("cells_counted_twice", 0)
        truth, score = against_truth(store, EIGHT, 64), session.score()
        found = truth.places
        assert session.status().instances == len(found)
    clean_store = SessionFile(tmp_path / "clean.db")
    with Session(bundle, MPP, store=clean_store) as session:
        for x, y in EIGHT:
            x_um, y_um = (x - 500 + FIELD[0] / 2) * MPP, (y - 400 + FIELD[1] / 2) * MPP
            session.add(Frame(field(x, y), x_um, y_um))
        clean = held(clean_store)
    assert score is not None
    assert (twice > 0) == (push_px > 2)
    assert truth.twice == 0
    assert truth.astray < 0.75
    assert truth.largest_error < 0.25
    assert abs(len(found) - len(clean)) <= missing * len(clean)
    if not push_px:
        assert found == clean
    # After a restart the same cells are held, and the score is the same to the bit.
    with Session(bundle, settings=NO_STAGE, store=SessionFile(tmp_path / "session.db")) as again:
        assert again.status().instances == len(found)
        assert again.score() == score


def test_a_restart_goes_on_as_if_nothing_had_happened(bundle: Bundle, tmp_path: Path) -> None:
    with Session(bundle, settings=NO_STAGE) as straight:
        expected = send(straight, PATH)
    with Session(bundle, settings=NO_STAGE, store=SessionFile(tmp_path / "session.db")) as session:
        results = send(session, PATH[:20])
    with Session(bundle, settings=NO_STAGE, store=SessionFile(tmp_path / "session.db")) as session:
        results += send(session, PATH[20:])
    for result, other in zip(results, expected, strict=True):
        assert (result.verdict, result.score, result.measures) == (
            other.verdict,
            other.score,
            other.measures,
        )


def test_a_killed_process_loses_nothing_that_was_acknowledged(
    bundle: Bundle, tmp_path: Path
) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        import test_no_stage as t
        from edge_mil.bundle import open_bundle
        from edge_mil.session import Session
        from edge_mil.store import SessionFile
        store = SessionFile(sys.argv[2])
        session = Session(open_bundle(sys.argv[1]), settings=t.NO_STAGE, store=store)
        t.send(session, t.PATH[:15])
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    here = Path(__file__).resolve().parent
    tests = here.parents[1]
    paths = [here, tests / "support", tests / "benchmarks", tests.parent]
    state = tmp_path / "session.db"
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle.path), str(state)],
        env={"PYTHONPATH": ":".join(map(str, paths)), "PATH": "/usr/bin:/bin"},
        check=False,
        timeout=120,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    with Session(bundle, settings=NO_STAGE) as straight:
        expected = send(straight, PATH)[-1]
    with Session(bundle, settings=NO_STAGE, store=SessionFile(state)) as session:
        assert len(session.fields()) == 15
        assert send(session, PATH[15:])[-1].score == expected.score


def test_a_field_that_is_nowhere_says_where_it_was_last_seen(bundle: Bundle) -> None:
    with Session(bundle, settings=NO_STAGE) as session:
        send(session, [(100, 100), (160, 130)])
        (lost,) = send(session, [(900, 800)])
        assert lost.verdict is Verdict.UNLOCATED
        said = measures(lost)
        assert said["last_seen_sequence"] == 2
        assert said["last_seen_x_um"] == (60 + FIELD[0] / 2) * MPP
        assert said["last_seen_y_um"] == (30 + FIELD[1] / 2) * MPP
        assert [m.passed for m in lost.measures if m.name == "registration_response"] == [False]
        assert lost.cells_added == 0
        (found,) = send(session, [(130, 120)])
        assert found.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE)


def test_glass_is_blank_and_places_nothing(bundle: Bundle) -> None:
    glass = with_noise(np.full((FIELD[1], FIELD[0], 3), 240, np.uint8), 2.0, 1)
    with Session(bundle, settings=NO_STAGE) as session:
        assert session.add(Frame(glass)).verdict is Verdict.BLANK
        (first,) = send(session, [(100, 100)])
        assert first.verdict is Verdict.ACCEPTED
        assert session.add(Frame(glass)).verdict is Verdict.BLANK
        assert session.fields()[1].x_um == FIELD[0] / 2 * MPP


def test_looking_longer_at_one_place_changes_nothing(bundle: Bundle) -> None:
    with Session(bundle, settings=NO_STAGE) as session:
        first, *again = send(session, [(100, 100)] * 6)
        assert {result.verdict for result in again} == {Verdict.DUPLICATE}
        assert {result.score for result in again} == {first.score}


def test_a_removed_field_still_places_its_neighbours(bundle: Bundle) -> None:
    with Session(bundle, settings=NO_STAGE) as session:
        send(session, [(100, 100)])
        session.remove(1)
        assert session.score() is None
        (after,) = send(session, [(160, 130)])
        assert after.verdict is Verdict.ACCEPTED
        assert session.fields()[1].x_um == (60 + FIELD[0] / 2) * MPP


def test_a_position_in_a_session_without_a_stage_is_an_error(bundle: Bundle) -> None:
    with (
        Session(bundle, settings=NO_STAGE) as session,
        pytest.raises(PositionError, match="without a stage"),
    ):
        session.add(Frame(field(100, 100), 10.0, 10.0))


def test_no_position_in_a_session_with_a_stage_is_an_error(bundle: Bundle) -> None:
    with Session(bundle, MPP) as session, pytest.raises(PositionError, match="without a stage"):
        session.add(Frame(field(100, 100)))


@pytest.mark.parametrize(("signs", "words"), [((-1, 1), "X is flipped"), ((1, -1), "Y is flipped")])
def test_a_flipped_stage_is_refused_at_the_first_overlap(
    signs: tuple[int, int], words: str, bundle: Bundle
) -> None:
    with Session(bundle, MPP) as session:
        session.add(Frame(field(400, 400), 0.0, 0.0))
        answer = session.add(Frame(field(480, 460), 40.0 * signs[0], 30.0 * signs[1]))
        assert answer.verdict is Verdict.UNLOCATED
        assert words in answer.explanation
        assert session.status().fields_held == 1


def test_a_stage_of_other_micrometres_is_refused(bundle: Bundle) -> None:
    with Session(bundle, MPP) as session:
        session.add(Frame(field(400, 400), 0.0, 0.0))
        answer = session.add(Frame(field(500, 400), 100.0, 0.0))
        assert answer.verdict is Verdict.UNLOCATED
        assert "calibrate pixel-size" in answer.explanation


def test_a_stage_that_jitters_gives_the_cells_of_one_that_does_not(
    bundle: Bundle, tmp_path: Path
) -> None:
    chance, counted = np.random.default_rng(5), []
    for name, jitter in (("clean", 0.0), ("jittering", 3.0)):
        store = SessionFile(tmp_path / f"{name}.db")
        with Session(bundle, MPP, store=store) as session:
            for number, (x, y) in enumerate(itertools.product(range(0, 900, 150), repeat=2)):
                error = chance.normal(0, jitter, 2) if number else (0, 0)
                x_um, y_um = (x + FIELD[0] / 2) * MPP, (y + FIELD[1] / 2) * MPP
                session.add(Frame(field(x, y), x_um + error[0], y_um + error[1]))
            counted.append(held(store))
    assert counted[0] == counted[1]
