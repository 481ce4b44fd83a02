"""What the demo shows while it runs: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from typing import TextIO

import cv2
import numpy as np

from edge_mil.types import FieldResult, Frame, UInt8Array

MAP_COLUMNS = 64
MAX_MAP_LINES = 22
"""Keeps the whole view within a terminal of 80 x 32."""
TEXT_LINES = 5
BAR = 30
REDRAW_S = 0.05
PLAIN_LINES = 12
"""About how many lines tell the course where there is no terminal."""

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_UNSEEN = (222, 226, 232)
_HERE = (217, 72, 1)


class LiveView:
    """Shows answers as they come; made for one slide."""

    def __init__(
        self, out: TextIO, width_um: float, height_um: float, fields: int, class_name: str
    ) -> None:
        """Prepare the view.

        Args:
            out: Where to write.
            width_um: Width of the slide.
            height_um: Height of the slide.
            fields: How many fields will come.
            class_name: Whose score is shown.
        """
        self._out, self._fields, self._class = out, fields, class_name
        self._live = out.isatty() and _can_draw(out)
        size = shutil.get_terminal_size((80, 32))
        columns = max(8, min(MAP_COLUMNS, size.columns - 2))
        # Higher than the window it could not be redrawn in place.
        room = max(1, min(MAX_MAP_LINES, size.lines - TEXT_LINES - 1))
        lines = max(1, min(room, round(columns * height_um / width_um / 2)))
        columns = max(8, min(columns, round(2 * lines * width_um / height_um)))
        # A character holds two pixels, one above the other: they are about square.
        self._map: UInt8Array = np.full((2 * lines, columns, 3), _UNSEEN, np.uint8)
        self._per_um = columns / width_um, 2 * lines / height_um
        self._verdicts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._drawn_at, self._drawn_lines = 0.0, 0
        self._last: tuple[FieldResult, Frame] | None = None
        self._every = max(1, fields // PLAIN_LINES)

    def show(self, result: FieldResult, frame: Frame, mpp: float) -> None:
        """Take one answer.

        Args:
            result: The answer.
            frame: The field that it is about.
            mpp: Pixel size of the camera, um/px.
        """
        self._verdicts[result.verdict.name] += 1
        self._last = result, frame
        if not self._live:
            done = sum(self._verdicts.values())
            if done == 1 or done % self._every == 0 or done == self._fields:
                self._out.write(self._line(result, done) + "\n")
                self._out.flush()
            return
        box = self._box(frame, mpp)
        self._paint(frame, box)
        if time.monotonic() - self._drawn_at >= REDRAW_S:
            self._draw(result, box)

    def finish(self) -> None:
        """Draw the end state."""
        if self._live and self._last is not None:
            self._draw(self._last[0], None)

    def _rate(self) -> float:
        return sum(self._verdicts.values()) / max(time.monotonic() - self._began, 1e-6)

    def _line(self, result: FieldResult, done: int) -> str:
        value = _value(result)
        score = "no score yet" if value is None else f"{self._class} {value:.3f}"
        return (
            f"field {done:>4} of {self._fields}  {result.verdict.name:<10} coverage "
            f"{result.coverage:4.0%}  {score}  {self._rate():.1f} fields/s"
        )

    def _box(self, frame: Frame, mpp: float) -> tuple[int, int, int, int]:
        """Return the map's columns and rows that a field covers: x0, y0, x1, y1."""
        half_w, half_h = frame.width_px * mpp / 2, frame.height_px * mpp / 2
        x, y = frame.x_um or 0.0, frame.y_um or 0.0
        rows, columns = self._map.shape[:2]
        x0 = min(columns - 1, max(0, round((x - half_w) * self._per_um[0])))
        y0 = min(rows - 1, max(0, round((y - half_h) * self._per_um[1])))
        x1 = min(columns, max(x0 + 1, round((x + half_w) * self._per_um[0])))
        y1 = min(rows, max(y0 + 1, round((y + half_h) * self._per_um[1])))
        return x0, y0, x1, y1

    def _paint(self, frame: Frame, box: tuple[int, int, int, int]) -> None:
        x0, y0, x1, y1 = box
        small = cv2.resize(frame.pixels, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        self._map[y0:y1, x0:x1] = small

    def _draw(self, result: FieldResult, here: tuple[int, int, int, int] | None) -> None:
        shown = self._map.copy()
        if here is not None:
            x0, y0, x1, y1 = here
            for edge in (
                shown[y0, x0:x1],
                shown[y1 - 1, x0:x1],
                shown[y0:y1, x0],
                shown[y0:y1, x1 - 1],
            ):
                edge[:] = _HERE
        lines = [self._map_line(shown[k], shown[k + 1]) for k in range(0, len(shown), 2)]
        value = _value(result)
        probability = bool(result.score and result.score.probabilities)
        number = "  -  " if value is None else f"{value:.3f}"
        bar = _bar(value if probability else None, (217, 72, 1))
        counts = "  ".join(f"{n} {name}" for name, n in self._verdicts.items())
        cells = result.score.instances if result.score else 0
        done = sum(self._verdicts.values())
        lines += [
            "",
            f"{_BOLD}{self._class:<10}{_RESET} {bar} {_BOLD}{number}{_RESET}",
            f"{'coverage':<10} {_bar(result.coverage, (90, 105, 120))} {result.coverage:.0%}",
            f"{'fields':<10} {done} of {self._fields}, {self._rate():.1f} per second, "
            f"{cells} places counted",
            f"{_DIM}{counts}{_RESET}",
        ]
        back = f"\x1b[{self._drawn_lines}F" if self._drawn_lines else ""
        self._out.write(back + "".join(f"\x1b[2K{line}\n" for line in lines))
        self._out.flush()
        self._drawn_lines, self._drawn_at = len(lines), time.monotonic()

    @staticmethod
    def _map_line(upper: UInt8Array, lower: UInt8Array) -> str:
        parts, before = [], ""
        for above, below in zip(upper, lower, strict=True):
            colour = (
                f"\x1b[38;2;{above[0]};{above[1]};{above[2]}m"
                f"\x1b[48;2;{below[0]};{below[1]};{below[2]}m"
            )
            parts.append("▀" if colour == before else f"{colour}▀")
            before = colour
        return " " + "".join(parts) + _RESET


def _bar(share: float | None, colour: tuple[int, int, int]) -> str:
    filled = 0 if share is None else round(BAR * min(1.0, max(0.0, share)))
    r, g, b = colour
    return f"\x1b[38;2;{r};{g};{b}m{'█' * filled}{_RESET}{_DIM}{'░' * (BAR - filled)}{_RESET}"


def _can_draw(out: TextIO) -> bool:
    """Say whether the terminal's encoding has the characters of the view."""
    try:
        "▀█░".encode(getattr(out, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _value(result: FieldResult) -> float | None:
    score = result.score
    if score is None or not (score.probabilities or score.logits):
        return None
    return (score.probabilities or score.logits)[-1]
