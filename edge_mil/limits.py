"""The bounds of everything that comes from outside, and the checks that apply them.

A bound is applied where a value is made, so that no later layer meets a number it cannot hold: a
frame checks its position, the settings of a session check their rectangles and names, a message is
checked before it is read. Each bound has its origin here; `docs/reliability.md` lists them for
users.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_mil.errors import PositionError, UsageError

if TYPE_CHECKING:
    from edge_mil.types import Region

# The stage

MAX_STAGE_UM = 1_000_000.0
"""Largest stage coordinate, µm, of either sign: a slide is 25 x 75 mm and a stage at most a metre.
Below it a float64 holds a position to a millionth of a camera pixel."""
MAX_AREA_UM = 2 * MAX_STAGE_UM
"""Longest side of a rectangle of the stage, µm: from one end of it to the other."""
MAX_REGIONS = 25_000
"""Rectangles of a tissue outline: as many as fit into one message of 1 MiB."""
MAX_OUTLINE_SPAN = 4_000_000
"""Cells of the rectangle around a tissue outline: a slide of 25 x 75 mm has so many of 22 µm, and
the usual cell is 112 µm."""
MAX_OUTLINE_CELLS = 1_000_000
"""Cells inside of a tissue outline."""
MAX_MAP_CELLS = 1_000_000
"""Cells of one map: 4 MB, which gRPC lets every client receive without an option."""
MAX_FIELD_CELLS = 1 << 14
"""Cells that one field may touch; 40 million pixels touch 1 794 of the usual 224 x 224."""
MAX_FIELD_TILE_BYTES = 1 << 30
"""Bytes of the tiles that one field may be cut into: 40 million pixels enlarged 1.5 times have
270 MB."""

# Time and counts

MAX_EPOCH_S = 253_402_300_799.0
"""The end of the year 9999, seconds since the epoch: the last that a date can be written of."""
MAX_IDLE_S = 30 * 86_400.0
"""Longest time after which an idle session expires: 30 days."""
MAX_SEQUENCE = (1 << 63) - 1
"""SQLite's largest integer."""

# Text

MAX_NAME_BYTES = 256
"""Names, labels and values of clients, as UTF-8."""
MAX_REASON_BYTES = 1024
"""A sentence that a user gives as a reason, as UTF-8."""
MAX_LABELS = 32
"""Entries of a map that a client may send."""
DIRECTION_MARKS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
"""Characters that turn the direction of the text after them; none of them shows itself."""
MAX_MESSAGE_CHARS = 1000
"""Characters of an error's sentence on the wire: gRPC allows 8 KiB for the metadata of an answer,
the sentence is in it up to three times, and a character may need four bytes."""

MAX_PRINTED_CHARS = 10_000
"""Characters of one line or cell that a command prints."""


def check_position(x_um: float, y_um: float) -> None:
    """Check that a stage position can be one.

    Args:
        x_um: Stage x, µm.
        y_um: Stage y, µm.

    Raises:
        PositionError: It is not finite, or beyond a metre.
    """
    if not (math.isfinite(x_um) and math.isfinite(y_um)):
        raise PositionError(
            f"The stage position ({x_um}, {y_um}) µm is not finite; "
            "read the stage again before sending the field."
        )
    if max(abs(x_um), abs(y_um)) > MAX_STAGE_UM:
        raise PositionError(
            f"The stage position ({x_um:.6g}, {y_um:.6g}) µm is more than {MAX_STAGE_UM / 1e6:g} m "
            "from the stage's origin, and no stage is that long; send micrometres."
        )


def check_region(region: Region, what: str, field: str) -> None:
    """Check that a rectangle can lie on a stage.

    Args:
        region: The rectangle, stage µm.
        what: What it is, for the message.
        field: The request's field, for the error's details.

    Raises:
        UsageError: A number is not finite, a side is not positive, or it lies beyond a metre.
    """
    corner, size = (region.x_um, region.y_um), (region.width_um, region.height_um)
    if not all(map(math.isfinite, corner + size)) or min(size) <= 0:
        raise UsageError(
            f"{what} has its corner at {corner} µm and the size {size} µm; send a finite corner "
            "and a positive size, in µm.",
            field=field,
        )
    if max(map(abs, corner)) > MAX_STAGE_UM or max(size) > MAX_AREA_UM:
        raise UsageError(
            f"{what} has its corner at ({corner[0]:.6g}, {corner[1]:.6g}) µm and the size "
            f"({size[0]:.6g}, {size[1]:.6g}) µm; a stage is at most a metre long, so send µm.",
            field=field,
        )


def check_text(text: str, what: str, field: str = "", max_bytes: int = MAX_NAME_BYTES) -> str:
    """Return a text of a client where it is short and can be printed.

    Control characters and those that change the direction of the text around them are refused:
    they would move the cursor of a terminal, or show another name than the one that is there.

    Args:
        text: What came.
        what: What it is, for the message.
        field: The request's field, for the error's details.
        max_bytes: Its length at most, as UTF-8.

    Raises:
        UsageError: It is too long, or holds such a character.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise UsageError(
            f"{what} has {size} bytes and at most {max_bytes} are taken; use a shorter one.",
            field=field,
        )
    bad = next((character for character in text if not is_printable(character)), None)
    if bad is not None:
        raise UsageError(
            f"{what} holds the character U+{ord(bad):04X}, which cannot be printed; leave out "
            "control characters, line breaks and marks of direction.",
            field=field,
        )
    return text


def check_labels(labels: Mapping[str, str], what: str, field: str) -> None:
    """Check the names and values that a client gave.

    Raises:
        UsageError: There are too many, or one is too long or cannot be printed.
    """
    if len(labels) > MAX_LABELS:
        raise UsageError(
            f"There are {len(labels)} {what}s and at most {MAX_LABELS} are taken.", field=field
        )
    for key, value in labels.items():
        place = f"{field}[{printable(key, 20)}]"
        check_text(key + value, f"The {what} {printable(key, 20)!r}", place)


def is_printable(character: str) -> bool:
    """Return whether a character shows itself and changes nothing around it.

    Source:
        Unicode's general categories Cc (control), Cs (surrogates), Zl and Zp (separators of lines),
        and the marks of direction of its Standard Annex 9, table 1.
    """
    return (
        unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        and character not in DIRECTION_MARKS
    )


def printable(text: str, most: int = MAX_MESSAGE_CHARS) -> str:
    """Return a text fit for a terminal, a log line or a status: printable, and not too long.

    Characters that cannot be printed become U+FFFD; a text that is cut ends in three dots.
    """
    cut = text if len(text) <= most else f"{text[: max(0, most - 3)]}..."
    if cut.isprintable():
        return cut
    return "".join(c if is_printable(c) else "\N{REPLACEMENT CHARACTER}" for c in cut)


def printable_lines(text: str, most: int = MAX_PRINTED_CHARS) -> str:
    """Return a text of several lines fit for a terminal; each line as `printable` gives it."""
    return "\n".join(printable(line, most) for line in text.split("\n"))
