"""Print for people: tables and a live view in a terminal, plain lines elsewhere.

rich belongs to the `device` extra, so it is imported where a terminal wants it: the light client
prints its tables as plain lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

GAP = "  "
"""Between two columns."""


def open_console(stream: TextIO) -> Console:
    """Return the console of a stream.

    Colour and a view that is redrawn are for terminals; NO_COLOR and TERM=dumb are obeyed, and
    a continuous-integration job (CI) gets plain lines even where it pretends to be a terminal.
    """
    from rich.console import Console

    terminal = stream.isatty() and not os.environ.get("CI")
    return Console(file=stream, force_terminal=terminal, markup=False, highlight=False, emoji=False)


def print_table(
    rows: Sequence[Sequence[str]], headings: Sequence[str] = (), right: Collection[int] = ()
) -> None:
    """Print a table on standard output.

    A terminal gets cells that fold at its width; a file or pipe one line for each row.

    Args:
        rows: Cells of each row.
        headings: Of the columns; none for a list of names and values.
        right: Columns of numbers, which are aligned at their right end.
    """
    if not sys.stdout.isatty() or not _print_rich(rows, headings, right):
        for line in _plain_lines([tuple(headings), *rows] if headings else rows, right):
            print(line)


def print_text(text: str) -> None:
    """Print a sentence on standard output; a terminal folds it between words."""
    try:
        console = open_console(sys.stdout) if sys.stdout.isatty() else None
    except ModuleNotFoundError:
        console = None
    if console is not None and console.is_terminal:
        console.print(text)
    else:
        print(text)


def _print_rich(
    rows: Sequence[Sequence[str]], headings: Sequence[str], right: Collection[int]
) -> bool:
    """Print the table by rich; return False where it is not installed, or no terminal shows it."""
    try:
        from rich.table import Table
    except ModuleNotFoundError:
        return False
    console = open_console(sys.stdout)
    if not console.is_terminal or console.is_dumb_terminal:
        return False
    table = Table(box=None, show_header=bool(headings), pad_edge=False, padding=(0, 2, 0, 0))
    for number in range(max(map(len, [headings, *rows]))):
        table.add_column(
            headings[number] if headings else "",
            justify="right" if number in right else "left",
            style="bold" if not headings and number == 0 else "",
            overflow="fold",
            no_wrap=number == 0,  # a name that is cut cannot be copied
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return True


def _plain_lines(rows: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    count = max(map(len, rows), default=0)
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(count)]
    return [
        GAP.join(
            cell.rjust(widths[k]) if k in right else cell.ljust(widths[k])
            for k, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
