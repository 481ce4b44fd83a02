"""Show a running session: a live view in a terminal, a dozen plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType

import cv2
import numpy as np
from rich.color import Color
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from edge_mil.types import FieldResult, Frame, UInt8Array

MAP_COLUMNS = 64
MAX_MAP_LINES = 22
"""Keeps the whole view within a terminal of 80 x 32."""
TEXT_LINES = 5
BAR = 30
REDRAW_S = 0.1
"""A redraw of the map takes 20 ms."""
PLAIN_LINES = 12
"""About how many lines are printed where there is no terminal."""

BLOCK = "▀"
"""One character shows two pixels of the map, in its colour and its background."""

UNSEEN = (222, 226, 232)
HERE = (217, 72, 1)
SCORE_STYLE = Style(color=Color.from_rgb(*HERE))
COVERAGE_STYLE = Style(color=Color.from_rgb(90, 105, 120))


class LiveView:
    """Shows a session's answers as they come; a context that ends with the last state on screen."""

    def __init__(
        self, console: Console, width_um: float, height_um: float, fields: int, class_name: str
    ) -> None:
        """Prepare the view.

        Args:
            console: Where to show it; plain lines where it is no terminal that redraws.
            width_um: Width of the slide.
            height_um: Height of the slide.
            fields: How many fields will come.
            class_name: Whose score is shown.
        """
        self._console, self._fields, self._class = console, fields, class_name
        redraws = console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(console=console, auto_refresh=False, vertical_overflow="crop")
            if redraws and _encodes_blocks(console)
            else None
        )
        self._map = _SlideMap(console, width_um, height_um)
        self._verdicts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._drawn_at = 0.0
        self._last: FieldResult | None = None
        self._plain_step = max(1, fields // PLAIN_LINES)

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._map.mark(None)
            self._redraw(self._live)
            self._live.stop()

    def show(self, result: FieldResult, frame: Frame, mpp: float) -> None:
        """Take one answer.

        Args:
            result: The answer.
            frame: The frame that it answers.
            mpp: Pixel size of the camera, µm/px.
        """
        self._verdicts[result.verdict.name] += 1
        self._last = result
        if self._live is None:
            done = self._verdicts.total()
            if done == 1 or done % self._plain_step == 0 or done == self._fields:
                self._console.out(self._plain_line(result), highlight=False)
            return
        self._map.add(frame, mpp)
        if time.monotonic() - self._drawn_at >= REDRAW_S:
            self._redraw(self._live)

    def _redraw(self, live: Live) -> None:
        if self._last is not None:
            live.update(self._view(self._last), refresh=True)
            self._drawn_at = time.monotonic()

    def _view(self, result: FieldResult) -> RenderableType:
        value, score = _value(result), result.score
        share = value if score is not None and score.probabilities else None
        numbers = Table.grid(padding=(0, 1))
        numbers.add_row(
            Text(self._class, style="bold"),
            _bar(share, SCORE_STYLE),
            Text("-" if value is None else f"{value:.3f}", style="bold"),
        )
        numbers.add_row(
            Text("coverage"), _bar(result.coverage, COVERAGE_STYLE), Text(f"{result.coverage:.0%}")
        )
        progress = (
            f"{self._verdicts.total()} of {self._fields} fields, {self._rate():.1f} per second, "
            f"{score.instances if score else 0} instances"
        )
        counts = "  ".join(f"{count} {name}" for name, count in self._verdicts.items())
        # Blocks without colour say nothing of the slide.
        colour = self._console.color_system is not None and not self._console.no_color
        return Group(
            *([self._map] if colour else []), Text(), numbers, _line(progress), _line(counts, "dim")
        )

    def _plain_line(self, result: FieldResult) -> str:
        value = _value(result)
        score = "no score yet" if value is None else f"{self._class} {value:.3f}"
        return (
            f"field {self._verdicts.total():>4} of {self._fields}  {result.verdict.name:<10} "
            f"coverage {result.coverage:4.0%}  {score}  {self._rate():.1f} fields/s"
        )

    def _rate(self) -> float:
        return self._verdicts.total() / max(time.monotonic() - self._began, 1e-6)


class _SlideMap:
    """The slide as a few pixels, two for each character; the newest field has a frame."""

    def __init__(self, console: Console, width_um: float, height_um: float) -> None:
        columns = max(8, min(MAP_COLUMNS, console.width - 2))
        # A view that is higher than the window could not be redrawn in place.
        room = max(1, min(MAX_MAP_LINES, console.height - TEXT_LINES - 1))
        lines = max(1, min(room, round(columns * height_um / width_um / 2)))
        columns = max(8, min(columns, round(2 * lines * width_um / height_um)))
        self._pixels: UInt8Array = np.full((2 * lines, columns, 3), UNSEEN, np.uint8)
        self._per_um = columns / width_um, 2 * lines / height_um
        self._here: tuple[int, int, int, int] | None = None

    def add(self, frame: Frame, mpp: float) -> None:
        """Draw a field where it lies, and frame it."""
        half_w, half_h = frame.width_px * mpp / 2, frame.height_px * mpp / 2
        x, y = frame.x_um or 0.0, frame.y_um or 0.0
        rows, columns = self._pixels.shape[:2]
        x0 = min(columns - 1, max(0, round((x - half_w) * self._per_um[0])))
        y0 = min(rows - 1, max(0, round((y - half_h) * self._per_um[1])))
        x1 = min(columns, max(x0 + 1, round((x + half_w) * self._per_um[0])))
        y1 = min(rows, max(y0 + 1, round((y + half_h) * self._per_um[1])))
        small = cv2.resize(frame.pixels, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        self._pixels[y0:y1, x0:x1] = small
        self.mark((x0, y0, x1, y1))

    def mark(self, box: tuple[int, int, int, int] | None) -> None:
        """Frame the pixels x0, y0 to x1, y1; None takes the frame away."""
        self._here = box

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        shown = self._pixels.copy()
        if self._here is not None:
            x0, y0, x1, y1 = self._here
            shown[y0:y1, [x0, x1 - 1]] = HERE
            shown[[y0, y1 - 1], x0:x1] = HERE
        for upper, lower in zip(shown[::2].tolist(), shown[1::2].tolist(), strict=True):
            yield Segment(" ")
            for above, below in zip(upper, lower, strict=True):
                yield Segment(
                    BLOCK, Style.from_color(Color.from_rgb(*above), Color.from_rgb(*below))
                )
            yield Segment.line()


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _bar(share: float | None, style: Style) -> ProgressBar:
    return ProgressBar(
        total=1.0, completed=share or 0.0, width=BAR, complete_style=style, finished_style=style
    )


def _encodes_blocks(console: Console) -> bool:
    """Say whether the terminal's encoding has the characters of the view."""
    try:
        f"{BLOCK}━".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _value(result: FieldResult) -> float | None:
    score = result.score
    if score is None or not (score.probabilities or score.logits):
        return None
    return (score.probabilities or score.logits)[-1]
