"""The live score of a session: at once, or in the background for heads that see the whole bag."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_mil.session.bag import Bag
from edge_mil.types import SlideScore


@dataclass(frozen=True, slots=True)
class Scored:
    """A score, and what it covers.

    Attributes:
        score: The score; None while there is none.
        as_of: Last field that it covers; None: all of them.
    """

    score: SlideScore | None = None
    as_of: int | None = None


class Scorer:
    """Scores a mergeable or banked bag when asked, before it returns."""

    def ask(self, bag: Bag, sequence: int) -> Scored:
        """Return the newest score there is of a bag that now holds field `sequence`."""
        return Scored(bag.score())

    def wait(self) -> Scored | None:
        """Return the score of the newest bag when it is there; None where `ask` gave it."""
        return None

    def close(self) -> None:
        """End."""


class BackgroundScorer(Scorer):
    """Runs a whole-bag head on the newest bag, again and again while it changes.

    Never further behind than one run: bags that came meanwhile are passed over for the newest.
    """

    def __init__(self, tell: Callable[[Scored], None]) -> None:
        """Start the thread.

        Args:
            tell: Called in this thread with each new score.
        """
        self._tell = tell
        self._change = threading.Condition()
        self._wanted: tuple[Bag, int] | None = None
        self._busy = self._closed = False
        self._newest = Scored(None, 0)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="whole-bag-scorer", daemon=True)
        self._thread.start()

    def ask(self, bag: Bag, sequence: int) -> Scored:
        """Ask for the score of a bag, and return the newest that there is."""
        with self._change:
            self._wanted = (bag, sequence)
            self._change.notify_all()
            return self._newest

    def wait(self) -> Scored | None:
        """Wait for the score of the newest bag.

        Raises:
            EdgeMilError: The head failed on it.
        """
        with self._change:
            self._change.wait_for(lambda: self._wanted is None and not self._busy)
            if self._failure is not None:
                raise self._failure
            return self._newest

    def close(self) -> None:
        """End the thread; a run under way is waited for."""
        with self._change:
            self._closed = True
            self._wanted = None
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._wanted is not None or self._closed)
                if self._closed or self._wanted is None:
                    return
                (bag, sequence), self._wanted, self._busy = self._wanted, None, True
            scored, failure = self._newest, None
            try:
                scored = Scored(bag.score(), sequence)
            except Exception as error:  # the edge of a worker: whoever waits for it gets it
                failure = error
            if failure is None and scored != self._newest:
                self._tell(scored)
            with self._change:
                self._newest, self._failure, self._busy = scored, failure, False
                self._change.notify_all()
