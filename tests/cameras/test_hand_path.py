"""Paths by hand: inside the slide, reproducible, slow enough, and returning."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mil.cameras.hand_path import MAX_STEP, TREMOR, hand_path

SLIDE, FIELD = (2200, 3000), (512, 384)


@pytest.fixture(params=range(3))
def path(request: pytest.FixtureRequest) -> list[tuple[int, int]]:
    return hand_path(*SLIDE, *FIELD, 200, request.param)


def test_a_path_has_as_many_frames_as_asked(path: list[tuple[int, int]]) -> None:
    assert len(path) == 200


def test_a_hand_stays_inside_the_slide(path: list[tuple[int, int]]) -> None:
    corners = np.array(path)
    assert (corners >= 0).all()
    assert (corners + FIELD <= SLIDE).all()


def test_a_hand_never_outruns_the_camera(path: list[tuple[int, int]]) -> None:
    steps = np.abs(np.diff(np.array(path), axis=0)) / FIELD
    assert steps.max() < MAX_STEP + 10 * TREMOR


def test_a_hand_stays_and_returns(path: list[tuple[int, int]]) -> None:
    corners = np.array(path) / FIELD
    assert (np.abs(np.diff(corners, axis=0)).sum(axis=1) == 0).any()
    away = np.abs(corners[:, None] - corners[None]).max(axis=2)
    later = np.triu(np.ones((200, 200), bool), 50)
    assert away[later].min() < 0.25


def test_the_same_seed_gives_the_same_path() -> None:
    assert hand_path(*SLIDE, *FIELD, 50, 7) == hand_path(*SLIDE, *FIELD, 50, 7)
    assert hand_path(*SLIDE, *FIELD, 50, 7) != hand_path(*SLIDE, *FIELD, 50, 8)


def test_a_hand_keeps_tissue_in_view() -> None:
    tissue = np.zeros((300, 220), bool)
    tissue[40:260, 60:160] = True
    for x, y in hand_path(*SLIDE, *FIELD, 100, 1, tissue):
        shown = tissue[y // 10 : (y + FIELD[1]) // 10, x // 10 : (x + FIELD[0]) // 10]
        assert shown.mean() > 0.15


def test_a_field_as_large_as_the_slide_stays_where_it_is() -> None:
    assert set(hand_path(512, 384, 512, 384, 20, 0)) == {(0, 0)}
