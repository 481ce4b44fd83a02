"""Send the frames of a source to a session, and show the progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from edge_mil.cli.console import terminal_console
from edge_mil.client import ClientSession, FieldStream, StreamSummary
from edge_mil.protocols import Camera
from edge_mil.types import REFUSED, FieldResult, Frame, Verdict
from edge_mil.verdict_text import unlocated_sentence, verdict_sentence

if TYPE_CHECKING:
    from rich.status import Status


class Playback:
    """Sends the frames of one source to one session; messages go to standard error."""

    def __init__(self, session: ClientSession, camera: Camera) -> None:
        self._session, self._camera = session, camera
        self._refused: dict[object, Frame] = {}
        self._began = time.monotonic()
        self._answered = 0
        self._status: Status | None = None
        self._said = ""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def run(self) -> StreamSummary:
        """Send every frame, then the refused fields again, as an operator would go back to them."""
        with (
            self._progress() as self._status,
            self._session.stream(
                on_result=self._show,
                on_error=lambda error, frame: say(f"{frame.name or 'a field'}: {error}"),
                on_disconnected=lambda why: say(f"waiting for the service. {why}"),
                on_resumed=lambda: say("the service is back"),
            ) as stream,
        ):
            _send(stream, self._camera.frames())
            for _ in range(self._camera.retakes):
                again, self._refused = self._refused, {}
                if not again:
                    break
                _send(stream, map(self._camera.retake, again.values()))
            return stream.finish()

    def _say_once(self, words: str) -> None:
        """Print a sentence; what holds a session is the same for all its fields."""
        if words != self._said:
            say(words)
        self._said = words

    def _progress(self) -> AbstractContextManager[Status | None]:
        """Return a line that is redrawn, where standard error is a terminal that can."""
        console = terminal_console(sys.stderr)
        return nullcontext() if console is None else console.status("waiting for an answer")

    def _show(self, result: FieldResult, frame: Frame) -> None:
        self._answered += 1
        if result.verdict in REFUSED:
            # Where it was is enough to go back: the pixels would fill the memory.
            at = (frame.x_um, frame.y_um, frame.location_id, frame.name)
            self._refused[at] = Frame(
                frame.pixels[:1, :1].copy(),
                frame.x_um,
                frame.y_um,
                frame.location_id,
                name=frame.name,
            )
        if result.verdict is Verdict.UNLOCATED:
            self._say_once(result.explanation or unlocated_sentence(result.measures))
        if self._status is not None:
            rate, words = self._answered / max(self.seconds, 1e-9), result.verdict.name
            if result.verdict in REFUSED:
                words += f", {verdict_sentence(result.verdict, 'operator')}"
            self._status.update(
                f"{self._answered} fields, {rate:.1f}/s, coverage {result.coverage:.0%}, "
                f"{_headline(result)}, {words}"
            )


def say(line: str) -> None:
    """Print a line on standard error."""
    print(f"edge-mil stream: {line}", file=sys.stderr, flush=True)


def _send(stream: FieldStream, frames: Iterator[Frame]) -> None:
    for frame in frames:
        stream.send(frame)
    stream.drain()


def _headline(result: FieldResult) -> str:
    if result.score is None or not result.score.classes:
        return "no score yet"
    shown = result.score.probabilities or result.score.logits
    return f"{result.score.classes[-1]} {shown[-1]:.3f}"
