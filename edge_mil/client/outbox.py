"""Frames of one stream: those to be sent, those that wait for their answer, and the credits."""

from __future__ import annotations

import collections
import heapq
from dataclasses import dataclass

from edge_mil.types import Frame

RING = 4
"""Frames of a live camera that may wait to be sent; beyond them the oldest is dropped."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A frame that has its sequence number.

    Attributes:
        sequence: Given when the frame starts to be sent, so that drops leave no gaps.
        frame: The frame; kept until it is answered.
        dropped_before: Frames dropped since the one before.
    """

    sequence: int
    frame: Frame
    dropped_before: int


class Outbox:
    """Gives out frames to send, those to be sent again first, and numbers the new ones.

    Not thread-safe; its owner has the lock.

    Attributes:
        dropped: Frames that a live camera lost because the service was behind.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._dropped_since = 0
        self._new: collections.deque[Frame] = collections.deque()
        self._again: collections.deque[int] = collections.deque()
        self._unanswered: dict[int, Outgoing] = {}
        self._free: list[int] = []
        self._next, self._limit, self._sent = 1, 0, 0

    def put(self, frame: Frame) -> None:
        """Add a frame at the end."""
        self._new.append(frame)

    def push_latest(self, frame: Frame) -> None:
        """Add a frame, dropping the oldest that has no number when the ring is full."""
        if len(self._new) >= RING:
            self._new.popleft()
            self.dropped += 1
            self._dropped_since += 1
        self._new.append(frame)

    @property
    def has_room(self) -> bool:
        """Whether a source that waits may add one: nothing waits to be sent for the first time."""
        return not self._new

    @property
    def empty(self) -> bool:
        """Whether everything is sent and answered."""
        return not (self._new or self._unanswered)

    @property
    def sendable(self) -> bool:
        """Whether there is a frame and the service allows it."""
        return self._sent < self._limit and bool(self._again or self._new)

    def next(self) -> Outgoing:
        """Return the frame to send now, with its number."""
        self._sent += 1
        if self._again:
            return self._unanswered[self._again.popleft()]
        if self._free:
            sequence = heapq.heappop(self._free)
        else:
            sequence, self._next = self._next, self._next + 1
        outgoing = Outgoing(sequence, self._new.popleft(), self._dropped_since)
        self._dropped_since = 0
        self._unanswered[sequence] = outgoing
        return outgoing

    def disconnect(self) -> None:
        """Forget the credits of the last connection: nothing may be sent."""
        self._sent = self._limit = 0
        self._again.clear()

    def connect(
        self, limit: int, durable_sequence: int, durable_beyond: tuple[int, ...]
    ) -> list[Outgoing]:
        """Start a new connection; return the unanswered frames that the service has already."""
        beyond = set(durable_beyond)
        kept = [n for n in self._unanswered if n <= durable_sequence or n in beyond]
        known = [self._unanswered.pop(number) for number in sorted(kept)]
        self._again.extend(sorted(self._unanswered))
        self._next = max(self._next, durable_sequence + 1, *(n + 1 for n in beyond), 1)
        self._limit, self._sent = limit, 0
        return known

    def allow(self, limit: int) -> None:
        """Note how many headers the service allows on this stream in all; it never shrinks."""
        self._limit = max(self._limit, limit)

    def answered(self, sequence: int, *, durable: bool) -> Outgoing | None:
        """Return the frame that was answered; None for a number that waits for no answer.

        The number of a field that the service could not process is given to the next one.
        """
        outgoing = self._unanswered.pop(sequence, None)
        if outgoing is not None and not durable:
            heapq.heappush(self._free, sequence)
        return outgoing
