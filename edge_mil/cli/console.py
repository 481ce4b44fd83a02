"""Print for people: tables and a live view in a terminal, plain lines elsewhere.

rich belongs to the `device` extra, so it is imported where a terminal wants it: the light client
prints its tables as plain lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TextIO

from edge_mil.limits import MAX_PRINTED_CHARS, printable, printable_lines

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

    A terminal gets cells that fold at its width; a file or pipe one line for each row. What cannot
    be printed, as an escape sequence in a stored label, is replaced.

    Args:
        rows: Cells, as many in each row.
        headings: Of the columns; none for a list of names and values.
        right: Columns of numbers, which are aligned at their right end.
    """
    rows = [[printable(cell, MAX_PRINTED_CHARS) for cell in row] for row in rows]
    lines = [headings, *rows] if headings else rows
    if not lines:
        return
    console = terminal_console(sys.stdout)
    if console is None:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = [
                cell.rjust(width) if number in right else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            print(GAP.join(cells).rstrip())
        return
    from rich.table import Table

    table = Table(box=None, show_header=bool(headings), pad_edge=False, padding=(0, 2, 0, 0))
    for number in range(len(lines[0])):
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


def print_text(text: str) -> None:
    """Print a sentence on standard output; a terminal folds it between words."""
    console, text = terminal_console(sys.stdout), printable_lines(text)
    if console is None:
        print(text)
    else:
        console.print(text)


def terminal_console(stream: TextIO) -> Console | None:
    """Return the console of a stream; None where it gets plain lines, or rich is not installed."""
    if not stream.isatty():
        return None
    try:
        console = open_console(stream)
    except ModuleNotFoundError:
        return None
    return console if console.is_terminal and not console.is_dumb_terminal else None
