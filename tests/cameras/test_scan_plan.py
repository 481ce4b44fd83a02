"""Paths over a slide, and the options of a stream."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.cameras import ScanPlan, parse_fov, serpentine
from edge_mil.errors import UsageError


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(0, 0.95),
)
def test_a_serpentine_covers_every_pixel_and_never_leaves_the_slide(
    width: int, height: int, wide: float, high: float, overlap: float
) -> None:
    field_w, field_h = max(1, round(width * wide)), max(1, round(height * high))
    corners = serpentine(width, height, field_w, field_h, overlap)
    assert len(set(corners)) == len(corners)
    seen = np.zeros((height, width), bool)
    for x, y in corners:
        assert 0 <= x <= width - field_w
        assert 0 <= y <= height - field_h
        seen[y : y + field_h, x : x + field_w] = True
    assert seen.all()


def test_a_serpentine_turns_at_the_end_of_each_row() -> None:
    assert serpentine(25, 20, 10, 10, 0.0) == [
        (0, 0), (10, 0), (15, 0),
        (15, 10), (10, 10), (0, 10),
    ]  # fmt: skip


STOPS = list(range(12))


def test_random_visits_the_same_places_in_the_order_of_its_seed() -> None:
    first = list(ScanPlan("random", seed=1).route(STOPS, 0))
    assert first == list(ScanPlan("random", seed=1).route(STOPS, 0))
    assert first != list(ScanPlan("random", seed=2).route(STOPS, 0))
    assert sorted(first) == STOPS


def test_passes_walk_the_path_again() -> None:
    assert list(ScanPlan(passes=2).route(STOPS, 0)) == STOPS * 2
    twice = list(ScanPlan("random", passes=2).route(STOPS, 0))
    assert set(collections.Counter(twice).values()) == {2}


def test_frames_end_the_stream_except_when_hovering() -> None:
    assert list(ScanPlan(frames=5).route(STOPS, 0)) == STOPS[:5]
    assert list(ScanPlan("hover", frames=5).route(STOPS, 7)) == [7] * 5 + STOPS


@pytest.mark.parametrize(
    "options",
    [
        {"path": "spiral"},
        {"overlap": -0.1},
        {"overlap": 0.96},
        {"overlap": float("nan")},
        {"passes": 0},
        {"frames": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
    ],
)
def test_options_without_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ScanPlan(**options)  # type: ignore[arg-type]


def test_a_field_is_width_by_height() -> None:
    assert parse_fov("1024x768") == (1024, 768)
    assert parse_fov("512") == (512, 512)
    for text in ("", "x", "12x", "-5x5", "1x2x3", "a", "0x9", "1.5x2"):
        with pytest.raises(UsageError, match="1024x768"):
            parse_fov(text)
