"""Score the bag of a session: at once, or in the background for whole-bag heads."""

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
    """Scores a mergeable or banked bag at once."""

    def request(self, bag: Bag, sequence: int) -> Scored:
        """Request the score of a bag that now holds field `sequence`.

        Returns:
            The newest score there is.
        """
        return Scored(bag.score())

    def wait(self) -> Scored | None:
        """Return the score of the newest bag once it is there; None where `request` gave it."""
        return None

    def close(self) -> None:
        """End."""


class BackgroundScorer(Scorer):
    """Runs a whole-bag head on the newest bag, again and again while it changes.

    It is never further behind than one run: of the bags that came during a run only the newest is
    scored.
    """

    def __init__(self, on_score: Callable[[Scored], None]) -> None:
        """Start the thread.

        Args:
            on_score: Called in this thread with each new score.
        """
        self._on_score = on_score
        self._change = threading.Condition()
        self._requested: tuple[Bag, int] | None = None
        self._busy = self._closed = False
        self._newest = Scored(None, 0)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="whole-bag-scorer", daemon=True)
        self._thread.start()

    def request(self, bag: Bag, sequence: int) -> Scored:
        """See `Scorer.request`; the score comes later, through `on_score`."""
        with self._change:
            self._requested = (bag, sequence)
            self._change.notify_all()
            return self._newest

    def wait(self) -> Scored | None:
        """Wait for the score of the newest bag.

        Raises:
            EdgeMilError: The head failed on it.
        """
        with self._change:
            self._change.wait_for(lambda: self._requested is None and not self._busy)
            if self._failure is not None:
                raise self._failure
            return self._newest

    def close(self) -> None:
        """End the thread, after a run that is under way."""
        with self._change:
            self._closed = True
            self._requested = None
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._requested is not None or self._closed)
                if self._closed or self._requested is None:
                    return
                (bag, sequence), self._requested, self._busy = self._requested, None, True
            scored, failure = self._newest, None
            try:
                scored = Scored(bag.score(), sequence)
            except Exception as error:  # the edge of a worker: `wait` raises it
                failure = error
            if failure is None and scored != self._newest:
                self._on_score(scored)
            with self._change:
                self._newest, self._failure, self._busy = scored, failure, False
                self._change.notify_all()
