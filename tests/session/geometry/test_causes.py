"""The cause of a contradiction is named, with the setting that mends it."""

from __future__ import annotations

import pytest

from edge_mil.session.geometry.causes import cause_of, late_cause
from edge_mil.session.geometry.stage_fit import Move

Vector = tuple[float, float]

ROW: list[Vector] = [(290.0, 0.0), (290.0, 0.0), (0.0, 220.0), (-290.0, 0.0)]
"""What the images of a serpentine show, um."""

CASES: dict[str, tuple[tuple[Vector, Vector], str, str]] = {
    "x flipped": (((-1, 0), (0, 1)), "x-flipped", "X is flipped"),
    "y flipped": (((1, 0), (0, -1)), "y-flipped", "Y is flipped"),
    "both flipped": (((-1, 0), (0, -1)), "both-flipped", "180"),
    "exchanged": (((0, 1), (1, 0)), "exchanged", "X and Y are exchanged"),
    "a quarter turn": (((0, -1), (1, 0)), "turned", "a quarter"),
    "half the pixel size": (((2, 0), (0, 2)), "pixel-size", "declared as 0.25 µm .* 0.5"),
    "another objective": (((0.5, 0), (0, 0.5)), "pixel-size", "objective or the binning"),
    "millimetres": (((1e-3, 0), (0, 1e-3)), "units", "millimetres"),
    "nanometres": (((1e3, 0), (0, 1e3)), "units", "nanometres"),
    "encoder steps": (((10, 0), (0, 10)), "units", "tenths of a micrometre"),
    "turned": (((0.94, -0.342), (0.342, 0.94)), "rotation", "turned by 20.0 degrees"),
    "mirrored and turned": (((0.94, 0.342), (0.342, -0.94)), "mirrored", "mirrored"),
}


def moves(matrix: tuple[Vector, Vector], images: list[Vector]) -> list[Move]:
    (a, b), (c, d) = matrix
    return [
        Move(n, n + 1, (a * x + b * y, c * x + d * y), (x, y))
        for n, (x, y) in enumerate(images, start=1)
    ]


@pytest.mark.parametrize(("matrix", "name", "words"), CASES.values(), ids=CASES.keys())
def test_each_cause_is_named(matrix: tuple[Vector, Vector], name: str, words: str) -> None:
    import re

    found = cause_of(moves(matrix, ROW), 0.25)
    assert found is not None
    assert found.name == name
    assert re.search(words, found.sentence)


def test_two_moves_along_one_row_are_enough_where_they_tell() -> None:
    found = cause_of(moves(((-1, 0), (0, 1)), ROW[:2]), 0.5)
    assert found is not None
    assert found.name == "x-flipped"


def test_moves_that_no_one_setting_explains_have_no_cause() -> None:
    wild = [
        Move(1, 2, (290.0, 0.0), (40.0, 90.0)),
        Move(2, 3, (290.0, 0.0), (-200.0, 10.0)),
        Move(3, 4, (0.0, 220.0), (100.0, 100.0)),
    ]
    assert cause_of(wild, 0.5) is None
    assert late_cause(wild) is None


def late(images: list[Vector]) -> list[Move]:
    stages = [(0.0, 0.0), *images]
    return [
        Move(n, n + 1, stage, image)
        for n, (stage, image) in enumerate(zip(stages, images, strict=False), start=1)
    ]


def test_positions_that_are_late_by_a_field_are_named() -> None:
    found = late_cause(late(ROW))
    assert found is not None
    assert found.name == "late"


def test_one_position_that_was_read_too_early_is_no_late_stage() -> None:
    good = [Move(n, n + 1, image, image) for n, image in enumerate(ROW[1:], start=2)]
    slip = [Move(1, 2, (0.0, 0.0), (290.0, 0.0)), *good]
    assert late_cause(slip) is None
    assert late_cause(good) is None
