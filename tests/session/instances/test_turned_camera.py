"""A session whose camera is turned, flipped or reaches beyond the slide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_bundle import write_small_bundle
from textured_slide import textured_slide
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import Imperfections, VirtualMicroscope, open_camera
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame, SlideScore

MPP = 0.5
WIDTH, HEIGHT = 700, 560


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b", channels=2))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "s.tiff"
    return write_tiled_tiff(path, textured_slide(WIDTH, HEIGHT), mpp=MPP)


def microscope(slide: Path, **faults: float) -> VirtualMicroscope:
    camera = open_camera(
        str(slide),
        fov=(240, 200),
        faults=Imperfections(**faults) if faults else None,  # type: ignore[arg-type]
    )
    assert isinstance(camera, VirtualMicroscope)
    return camera


def settings_for(camera: VirtualMicroscope) -> SessionSettings:
    return SessionSettings(MPP, stage_affine=camera.stage_affine, area=camera.area)


def read(
    model: Model, settings: SessionSettings, frames: list[Frame]
) -> tuple[set[str], SlideScore | None, float]:
    """Return the places of the bag, the score and the coverage."""
    with Session(model, settings=settings) as session:
        for frame in frames:
            session.add(frame)
        session._store.flush()
        places = {row.instance_key for row in session._store.instances(arrays=False)}
        return places, session.score(), session.status().coverage


@pytest.fixture(scope="module")
def straight(model: Model, slide: Path) -> tuple[set[str], SlideScore | None, float]:
    camera = microscope(slide)
    return read(model, settings_for(camera), list(camera.frames()))


@pytest.mark.parametrize("degrees", [3.0, -14.0, 47.0])
def test_a_turned_camera_sees_the_same_cells(
    model: Model,
    slide: Path,
    straight: tuple[set[str], SlideScore | None, float],
    degrees: float,
) -> None:
    camera = microscope(slide, rotation_deg=degrees)
    places, score, _ = read(model, settings_for(camera), list(camera.frames()))
    assert places == straight[0]
    assert score is not None
    assert straight[1] is not None
    assert np.abs(np.subtract(score.probabilities, straight[1].probabilities)).max() < 0.02


@pytest.mark.parametrize(
    ("affine", "seen"),
    [
        ((-MPP, 0.0, 0.0, MPP), lambda pixels: pixels[:, ::-1]),
        ((MPP, 0.0, 0.0, -MPP), lambda pixels: pixels[::-1]),
        ((0.0, -MPP, MPP, 0.0), lambda pixels: np.rot90(pixels)),
    ],
    ids=["x flipped", "y flipped", "a quarter turn"],
)
def test_a_flipped_camera_gives_the_same_score_to_the_bit(
    model: Model,
    slide: Path,
    straight: tuple[set[str], SlideScore | None, float],
    affine: tuple[float, float, float, float],
    seen: object,
) -> None:
    frames = [
        Frame(np.ascontiguousarray(seen(frame.pixels)), frame.x_um, frame.y_um)  # type: ignore[operator]
        for frame in microscope(slide).frames()
    ]
    places, score, _ = read(model, SessionSettings(MPP, stage_affine=affine), frames)
    assert (places, score) == straight[:2]


@pytest.mark.parametrize("jitter_um", [0.0, 3.0])
def test_a_turned_session_goes_on_after_a_restart_to_the_bit(
    model: Model, slide: Path, tmp_path: Path, jitter_um: float
) -> None:
    camera = microscope(slide, rotation_deg=11.0, jitter_um=jitter_um)
    frames = list(camera.frames())
    whole = SessionFolder(tmp_path / "whole").create(model, settings_for(camera))
    folder = SessionFolder(tmp_path / "parts")
    broken = folder.create(model, settings_for(camera))
    for number, frame in enumerate(frames, start=1):
        whole.add(frame)
        broken.add(frame)
        if number % 5 == 2:
            broken.release()
            broken = folder.open(broken.session_id, lambda _: model)
            assert broken.settings == whole.settings
        assert broken.status().coverage == whole.status().coverage
        assert broken.score() == whole.score()
    assert whole.status().instances > 40
    whole.release()
    broken.release()


def test_a_scan_that_reaches_beyond_the_slide_invents_no_cell(
    model: Model, slide: Path, straight: tuple[set[str], SlideScore | None, float]
) -> None:
    camera = microscope(slide, rotation_deg=5.0)
    assert min(x for x, _ in camera.corners) < 0
    frames = list(camera.frames())
    without = SessionSettings(MPP, stage_affine=camera.stage_affine)
    assert read(model, without, frames)[0] > straight[0]
    assert read(model, settings_for(camera), frames)[0] == straight[0]


def test_the_scale_of_an_affine_is_undone(model: Model, slide: Path) -> None:
    """A pixel size that was rounded to 0.5, and the affine that was measured beside it."""
    camera = microscope(slide)
    wrong = 1.04 * MPP
    places, _, _ = read(
        model,
        SessionSettings(wrong, stage_affine=(MPP, 0.0, 0.0, MPP)),
        list(camera.frames()),
    )
    cells = math.floor(WIDTH * MPP / 32) * math.floor(HEIGHT * MPP / 32)
    assert len(places) == cells
