"""The live view: redrawn within 80 columns in a terminal, a dozen plain lines elsewhere."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from edge_mil.demo.terminal import LiveView
from edge_mil.types import FieldResult, Frame, SlideScore, Verdict

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*[34]8[;:]")


def _terminal(**options: object) -> Console:
    screen = {"width": 80, "height": 32, "color_system": "truecolor", "_environ": {}}
    return Console(file=io.StringIO(), force_terminal=True, **{**screen, **options})


def _answer(sequence: int) -> FieldResult:
    score = SlideScore(("negative", "positive"), (0.0, 1.0), (0.25, 0.75), instances=sequence)
    return FieldResult(sequence, Verdict.ACCEPTED, score=score, coverage=sequence / 40)


def _play(console: Console, fields: int) -> str:
    pixels = np.full((100, 200, 3), 120, np.uint8)
    with LiveView(console, 400.0, 200.0, fields, "positive") as view:
        for number in range(1, fields + 1):
            view.show(_answer(number), Frame(pixels, x_um=10.0 * number, y_um=25.0), 0.5)
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def test_a_terminal_sees_the_score_the_coverage_and_the_counts() -> None:
    shown = ESCAPE.sub("", _play(_terminal(), 40))
    end = shown[shown.rindex("positive") :]
    for part in ("0.750", "100%", "40 of 40 fields", "40 instances", "40 ACCEPTED"):
        assert part in end


@pytest.mark.parametrize(("width", "height"), [(80, 32), (80, 24), (40, 12)])
def test_the_view_stays_inside_of_the_window(width: int, height: int) -> None:
    shown = _play(_terminal(width=width, height=height), 40)
    # A drawing ends where the next one moves the cursor up to its first line.
    drawings = re.split(r"\x1b\[1A", shown)
    for drawing in drawings:
        lines = ESCAPE.sub("", drawing).replace("\r", "").splitlines()
        assert len(lines) < height
        assert max(map(len, lines), default=0) <= width


def test_the_view_is_redrawn_in_place() -> None:
    shown = _play(_terminal(), 400)
    first, *rest = shown.split("\r\x1b[2K")
    drawn_lines = first.count("\n")
    ups = re.findall(r"(?:\x1b\[1A\x1b\[2K)+", shown)
    assert rest
    assert {up.count("\x1b[1A") for up in ups} == {drawn_lines}


def test_without_colour_there_is_no_map_and_no_colour_code() -> None:
    shown = _play(_terminal(no_color=True), 40)
    assert "▀" not in shown
    assert not COLOUR.search(shown)
    assert "0.750" in shown
    assert COLOUR.search(_play(_terminal(), 40))


@pytest.mark.parametrize(
    "console",
    [
        Console(file=io.StringIO(), _environ={}),
        Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}),
        Console(file=io.TextIOWrapper(io.BytesIO(), "ascii"), force_terminal=True, _environ={}),
    ],
    ids=["a pipe", "a dumb terminal", "a terminal without block characters"],
)
def test_elsewhere_there_are_about_a_dozen_plain_lines(console: Console) -> None:
    with LiveView(console, 400.0, 200.0, 40, "positive") as view:
        for number in range(1, 41):
            view.show(_answer(number), Frame(np.zeros((10, 20, 3), np.uint8)), 0.5)
    out = console.file
    out.seek(0)
    shown = out.read()
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert 10 <= len(lines) <= 16
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("field   40 of 40")


def test_a_field_beyond_the_edge_of_the_slide_is_drawn_at_the_edge() -> None:
    console = _terminal()
    with LiveView(console, 400.0, 200.0, 1, "positive") as view:
        frame = Frame(np.zeros((100, 200, 3), np.uint8), x_um=4000.0, y_um=-900.0)
        view.show(_answer(1), frame, 0.5)
    assert "1 of 1" in console.file.getvalue()


def test_an_interrupted_view_gives_the_cursor_back() -> None:
    console = _terminal()
    with pytest.raises(KeyboardInterrupt), LiveView(console, 400.0, 200.0, 2, "positive"):
        raise KeyboardInterrupt
    shown = console.file.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
