"""Faults of a virtual stage: parsed in words, and seen in positions and pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from textured_slide import textured_slide
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import open_camera, parse_stage_faults
from edge_mil.errors import UsageError
from edge_mil.types import Frame

MPP = 0.5
FOV = (160, 120)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiled_tiff(
        tmp_path_factory.mktemp("slide") / "slide.tiff", textured_slide(500, 400), mpp=MPP
    )


def frames(slide: Path, *words: str) -> list[Frame]:
    camera = open_camera(str(slide), fov=FOV, stage_faults=parse_stage_faults(words))
    try:
        return list(camera.frames())
    finally:
        camera.close()


def positions(found: list[Frame]) -> np.ndarray:
    return np.array([(frame.x_um, frame.y_um) for frame in found])


def test_a_stage_without_faults_is_a_perfect_one(slide: Path) -> None:
    clean, same = frames(slide), frames(slide, "turned=0")
    assert np.array_equal(positions(clean), positions(same))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(clean, same, strict=True))


@pytest.mark.parametrize(
    ("words", "matrix"),
    [
        (["x-flipped"], ((-1, 0), (0, 1))),
        (["x-flipped", "y-flipped"], ((-1, 0), (0, -1))),
        (["exchanged"], ((0, 1), (1, 0))),
        (["unit=1000"], ((1e-3, 0), (0, 1e-3))),
    ],
)
def test_positions_are_reported_wrongly(
    words: list[str], matrix: tuple[tuple[float, float], ...], slide: Path
) -> None:
    clean, wrong = frames(slide), frames(slide, *words)
    assert np.allclose(positions(wrong), positions(clean) @ np.array(matrix).T)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(clean, wrong, strict=True))


def test_late_positions_are_those_of_the_field_before(slide: Path) -> None:
    clean, late = positions(frames(slide)), positions(frames(slide, "late"))
    assert np.allclose(late[1:], clean[:-1])
    assert np.allclose(late[0], clean[0])


def test_backlash_moves_what_is_seen_and_not_what_is_reported(slide: Path) -> None:
    clean, lost = frames(slide), frames(slide, "backlash=20")
    assert np.allclose(positions(clean), positions(lost))
    columns = len({frame.x_um for frame in clean})
    # Along the first row the stage arrives from the left: it lacks 10 um, which are 20 px.
    for a, b in zip(clean[1:columns], lost[1:columns], strict=True):
        assert np.array_equal(a.pixels[:, :-20], b.pixels[:, 20:])
    # In the second row it arrives from the right, and from above: 20 px the other way, and 20 down.
    back = columns + 1
    assert np.array_equal(clean[back].pixels[:-20, 20:], lost[back].pixels[20:, :-20])


def test_camera_and_objective_and_slide_change_what_is_seen(slide: Path, tmp_path: Path) -> None:
    clean, mirrored = frames(slide), frames(slide, "mirrored")
    assert np.array_equal(clean[0].pixels, mirrored[0].pixels[:, ::-1])
    stronger = frames(slide, "objective=2@3")
    assert np.array_equal(stronger[1].pixels, clean[1].pixels)
    assert not np.array_equal(stronger[2].pixels, clean[2].pixels)
    other = write_tiled_tiff(tmp_path / "other.tiff", textured_slide(500, 400, 4), mpp=MPP)
    exchanged = frames(slide, f"slide={other}@5")
    same = [np.array_equal(a.pixels, b.pixels) for a, b in zip(clean, exchanged, strict=True)]
    assert same == [n < 4 for n in range(len(clean))]


def test_a_declared_pixel_size_may_be_wrong(slide: Path) -> None:
    camera = open_camera(str(slide), fov=FOV, stage_faults=parse_stage_faults(["mpp=0.5"]))
    assert camera.mpp == MPP / 2
    camera.close()
    assert np.allclose(positions(frames(slide, "mpp=0.5")), positions(frames(slide)))


@pytest.mark.parametrize(
    "word",
    ["flipped", "late=2", "turned", "turned=x", "unit=0", "mpp=nan", "objective=2@0", "slide="],
)
def test_what_is_no_fault_is_refused_with_the_list(word: str) -> None:
    with pytest.raises(UsageError, match="--fault"):
        parse_stage_faults([word])


def test_faults_of_a_stage_are_for_slides(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="for slides"):
        open_camera(str(tmp_path / "folder"), mpp=0.5, stage_faults=parse_stage_faults(["late"]))
