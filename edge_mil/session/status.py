"""The status of a session: written by its worker and by the background scorer, read by anyone."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edge_mil.session.bag import Bag
from edge_mil.session.scorer import BackgroundScorer, Scored, Scorer
from edge_mil.types import SessionCheck, SlideScore, Verdict


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """What a session has read so far.

    Attributes:
        score: Score of the bag; None while it is empty.
        revision: Counts the changes of the bag; the score is a function of it.
        instances: Instances in the bag.
        fields_held: Fields whose instances are in the bag.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        verdicts: How many fields got each verdict.
        last_sequence: Largest sequence number answered; 0 before the first.
        durable_sequence: Every number up to it is answered and durable.
        durable_beyond: Durable numbers above it.
        closed: Whether the session takes no more fields.
        expired: Whether it was closed because no field came for its idle timeout.
        light: Whether the empty glass seen agrees with the background: unproven, agrees or
            contradicted; "" where it is not checked.
        as_of: Last field that the score covers, where the head is scored in the background;
            None: all.
        geometry: Whether pixel size, axes and units are those that the images show.
        slide: Whether the slide is still the one of the beginning.
        camera: Whether a passport says what the camera does to the score.
    """

    score: SlideScore | None = None
    revision: int = 0
    instances: int = 0
    fields_held: int = 0
    coverage: float = 0.0
    verdicts: Mapping[Verdict, int] = field(default_factory=dict)
    last_sequence: int = 0
    durable_sequence: int = 0
    durable_beyond: tuple[int, ...] = ()
    closed: bool = False
    expired: bool = False
    light: str = ""
    as_of: int | None = None
    geometry: SessionCheck = field(default_factory=SessionCheck)
    slide: SessionCheck = field(default_factory=SessionCheck)
    camera: str = ""


class StatusBoard:
    """Scores the bag after each change, and keeps the newest status; thread-safe."""

    def __init__(self, *, background: bool, on_score: Callable[[], None]) -> None:
        """Start with an empty status.

        Args:
            background: Score in a thread, for heads that must see the whole bag.
            on_score: Called in that thread with each new score.
        """
        self._lock = threading.Lock()
        self._scored = Scored()
        self._status = SessionStatus()
        self._on_score = on_score
        self._scorer = BackgroundScorer(self._put_score) if background else Scorer()

    def request(self, bag: Bag, sequence: int) -> Scored:
        """Request the score of a bag that holds field `sequence`; return the newest there is."""
        return self._scorer.request(bag, sequence)

    def put(self, status: SessionStatus, scored: Scored) -> None:
        """Set the status after a change, with the newest score that the worker knows."""
        with self._lock:
            # The background scorer may have set a newer score meanwhile.
            if (scored.as_of or 0) >= (self._scored.as_of or 0):
                self._scored = scored
            newest = self._scored
            self._status = dataclasses.replace(status, score=newest.score, as_of=newest.as_of)

    def get(self) -> SessionStatus:
        """Return the newest status."""
        return self._status

    def final(self) -> SessionStatus:
        """Return the status with the score of all fields; waits for a background scorer."""
        scored = self._scorer.wait()
        if scored is not None:
            self.put(self._status, scored)
        return self._status

    def close(self) -> None:
        """End the background scorer."""
        self._scorer.close()

    def _put_score(self, scored: Scored) -> None:
        with self._lock:
            self._scored = scored
            self._status = dataclasses.replace(self._status, score=scored.score, as_of=scored.as_of)
        self._on_score()
