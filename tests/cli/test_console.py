"""What people see in a terminal, and what a pipe gets."""

from __future__ import annotations

import io
import re

import pytest
from terminal_screen import ESCAPE, in_a_terminal

from edge_mil.cli.console import open_console, print_table, print_text

LONG = "a sentence that is much too long for one line of a terminal, so that it has to be folded"
PROGRAM = (
    "from edge_mil.cli.console import print_table\n"
    f"rows = [('one', '1.5', {LONG!r}), ('three', '22', 'short')]\n"
    "print_table(rows, ('name', 'n', 'words'), {1})"
)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_that_folds_at_80_columns() -> None:
    shown = in_a_terminal(PROGRAM)
    lines = ESCAPE.sub("", shown).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 4
    assert "\x1b[" in shown


def test_a_terminal_without_colour_gets_none() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", in_a_terminal(PROGRAM, NO_COLOR="1"))


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}], ids=["dumb", "CI"])
def test_a_terminal_that_is_none_gets_plain_lines(environment: dict[str, str]) -> None:
    shown = in_a_terminal(PROGRAM, **environment)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 3


def test_a_pipe_gets_one_aligned_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("one", "1.5", LONG), ("three", "22", "short")], ("name", "n", "words"), {1})
    assert capsys.readouterr().out.splitlines() == [
        "name     n  words",
        f"one    1.5  {LONG}",
        "three   22  short",
    ]


def test_rows_may_be_names_and_values_and_may_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("name", "a"), ("longer name", "b")])
    print_table([])
    assert capsys.readouterr().out == "name         a\nlonger name  b\n"


def test_a_terminal_without_rich_gets_plain_lines() -> None:
    absent = "import sys\nsys.modules['rich'] = None\nsys.modules['rich.table'] = None\n"
    assert in_a_terminal(absent + PROGRAM).splitlines()[1] == f"one    1.5  {LONG}"


def test_no_environment_makes_a_pipe_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)
    assert not open_console(io.StringIO()).is_terminal
    assert open_console(_Terminal()).is_terminal


def test_what_would_move_the_cursor_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("slide", "\x1b]0;owned\x07\x1b[2J")])
    print_text("a\nb\x1b[31mc")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "a\nb" in out
