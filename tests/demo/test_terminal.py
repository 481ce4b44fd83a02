"""The live view: redrawn in a terminal, a dozen lines elsewhere."""

from __future__ import annotations

import io

import numpy as np

from edge_mil.demo.terminal import LiveView
from edge_mil.types import FieldResult, Frame, SlideScore, Verdict


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _answer(sequence: int) -> FieldResult:
    score = SlideScore(("negative", "positive"), (0.0, 1.0), (0.25, 0.75), instances=sequence)
    return FieldResult(sequence, Verdict.ACCEPTED, score=score, coverage=sequence / 40)


def _play(out: io.StringIO, fields: int) -> str:
    view = LiveView(out, 400.0, 200.0, fields, "positive")
    pixels = np.full((100, 200, 3), 120, np.uint8)
    for number in range(1, fields + 1):
        view.show(_answer(number), Frame(pixels, x_um=10.0 * number, y_um=25.0), 0.5)
    view.finish()
    return out.getvalue()


def test_a_terminal_sees_the_score_the_coverage_and_the_counts() -> None:
    shown = _play(_Terminal(), 40)
    end = shown[shown.rindex("positive") :]
    assert "0.750" in end
    assert "100%" in end
    assert "40 of 40" in end
    assert "40 ACCEPTED" in end


def test_the_view_is_redrawn_in_place() -> None:
    out = _Terminal()
    shown = _play(out, 40)
    first, second = shown.split("F\x1b[2K")[:2]
    height = int(first.rsplit("\x1b[", 1)[1])
    # Each drawing goes up by as many lines as the one before has written.
    assert first.count("\n") == height
    assert second.count("\n") == height


def test_elsewhere_there_are_about_a_dozen_plain_lines() -> None:
    shown = _play(io.StringIO(), 40)
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert 10 <= len(lines) <= 16
    assert lines[-1].startswith("field   40 of 40")


def test_a_field_beyond_the_edge_of_the_slide_is_drawn_at_the_edge() -> None:
    out = _Terminal()
    view = LiveView(out, 400.0, 200.0, 1, "positive")
    frame = Frame(np.zeros((100, 200, 3), np.uint8), x_um=4000.0, y_um=-900.0)
    view.show(_answer(1), frame, 0.5)
    view.finish()
    assert "1 of 1" in out.getvalue()
