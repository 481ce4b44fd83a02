"""The bounds of what comes from outside, where values are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.errors import EdgeMilError, FrameError, PositionError, UsageError
from edge_mil.imaging import GridGeometry
from edge_mil.limits import MAX_EPOCH_S, MAX_STAGE_UM, check_text, printable
from edge_mil.session import SessionSettings
from edge_mil.types import Frame, Region

PIXELS = np.zeros((4, 4, 3), np.uint8)
FAR = [1e18, 1e25, 1e308, -1e18, math.nan, math.inf, -math.inf, math.nextafter(MAX_STAGE_UM, 2e6)]


@pytest.mark.parametrize("at", FAR)
def test_a_frame_lies_within_a_metre_of_the_origin(at: float) -> None:
    for x, y in ((at, 0.0), (0.0, at)):
        with pytest.raises(PositionError):
            Frame(PIXELS, x, y)
    Frame(PIXELS, MAX_STAGE_UM, -MAX_STAGE_UM)


@pytest.mark.parametrize("seconds", [-1.0, MAX_EPOCH_S + 1, 1e18, math.nan, math.inf])
def test_a_capture_time_is_a_date_that_can_be_written(seconds: float) -> None:
    with pytest.raises(FrameError, match="no date"):
        Frame(PIXELS, capture_time_s=seconds)


@pytest.mark.parametrize("at", FAR)
def test_the_rectangles_of_a_session_lie_on_a_stage(at: float) -> None:
    for region in (Region(at, 0, 1, 1), Region(0, at, 1, 1)):
        with pytest.raises(UsageError):
            SessionSettings(0.5, area=region)
        with pytest.raises(UsageError):
            SessionSettings(0.5, tissue=(region,))


@pytest.mark.parametrize("size", [0.0, -1.0, 1e9, 1e308, math.nan, math.inf])
def test_a_rectangle_has_a_positive_size_of_at_most_two_metres(size: float) -> None:
    for region in (Region(0, 0, size, 1), Region(0, 0, 1, size)):
        with pytest.raises(UsageError):
            SessionSettings(0.5, tissue=(region,))


def test_a_field_of_more_cells_than_memory_holds_is_refused_before_they_are_listed() -> None:
    tiny = GridGeometry(0.25, 8, 8, 0.25)
    with pytest.raises(FrameError, match="use a bundle of larger cells"):
        tiny.cells_touching(0, 0, 8000, 5000)
    enlarged = GridGeometry(20.0, 224, 224, 0.25, allow_enlargement=True)
    with pytest.raises(FrameError):
        enlarged.cells_touching(0, 0, 2448, 2048)
    usual = GridGeometry(0.34, 224, 224, 0.25)
    assert len(usual.cells_touching(0, 0, 8000, 5000)) > 1000


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\nb", "\x00", "\u202egnp.exe", "\u2028", "\x9b", "\ud800"]
)
def test_a_name_that_would_move_a_cursor_or_turn_a_line_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be printed"):
        check_text(f"slide {text}", "The label")
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)


@pytest.mark.parametrize("text", ["S12-345 µm", "größe", "スライド", "شریحه‌ها", "👩‍🔬"])
def test_names_of_every_language_are_taken(text: str) -> None:
    assert check_text(text, "The label") == text == printable(text)


@given(st.text(max_size=300), st.integers(3, 50))
def test_printable_text_is_short_and_passes_the_check(text: str, most: int) -> None:
    shown = printable(text, most)
    assert len(shown) <= most
    check_text(shown, "It")


@given(st.floats(), st.floats(), st.floats(), st.floats())
def test_no_rectangle_is_an_unforeseen_error(
    x: float, y: float, width: float, height: float
) -> None:
    try:
        settings = SessionSettings(0.5, tissue=(Region(x, y, width, height),))
    except EdgeMilError:
        return
    assert settings.tissue
