"""Which sequence numbers were answered, with what, and which of the answers are durable."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass

from edge_mil.errors import SequenceError
from edge_mil.store import SessionReader

MAX_SEQUENCE = (1 << 63) - 1
"""SQLite's largest integer."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that was given before.

    Attributes:
        payload_crc: CRC-32 of what the client had sent.
        answer: Serialised `edge_mil.v1.FieldResult`.
        durable: Done when the answer may be sent again.
    """

    payload_crc: int
    answer: bytes
    durable: Future[None]


class AnswerLog:
    """Thread-safe: the writer thread notes what is durable while others ask."""

    def __init__(self, store: SessionReader) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._crc: dict[int, int] = {}
        self._waiting: dict[int, StoredAnswer] = {}
        self._contiguous = 0
        self._beyond: set[int] = set()
        self.last = 0

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._crc

    def must_be_new(self, sequence: int) -> None:
        """Check a number that a field comes with.

        Raises:
            SequenceError: It was used before, or is no sequence number.
        """
        if not 1 <= sequence <= MAX_SEQUENCE:
            raise SequenceError(
                f"Sequence numbers go from 1 to {MAX_SEQUENCE}; got {sequence}.", sequence=sequence
            )
        if sequence in self._crc:
            raise self.conflict(sequence)

    @staticmethod
    def conflict(sequence: int) -> SequenceError:
        """Return the error of a number that came with two different fields."""
        return SequenceError(
            f"Sequence number {sequence} was used for another field of this session; give every "
            "field its own number, counting up from 1.",
            sequence=sequence,
        )

    def note(self, sequence: int, answer: StoredAnswer) -> None:
        """Remember an answer; it counts as durable when its future is done without error."""
        with self._lock:
            self._crc[sequence] = answer.payload_crc
            self._waiting[sequence] = answer
            self.last = max(self.last, sequence)
        answer.durable.add_done_callback(lambda future: self._settle(sequence, future))

    def note_durable(self, sequence: int, payload_crc: int) -> None:
        """Remember an answer that the store holds already."""
        with self._lock:
            self._crc[sequence] = payload_crc
            self.last = max(self.last, sequence)
            self._count(sequence)

    def answer(self, sequence: int) -> StoredAnswer | None:
        """Return the answer that a number got before, None for a new number."""
        with self._lock:
            waiting = self._waiting.get(sequence)
            crc = self._crc.get(sequence)
        if waiting is not None:
            return waiting
        answer = self._store.answer(sequence) if crc is not None else None
        if crc is None or answer is None:
            return None
        done: Future[None] = Future()
        done.set_result(None)
        return StoredAnswer(crc, answer, done)

    def durable(self) -> tuple[int, tuple[int, ...]]:
        """Return (every number up to it is durable, the durable ones above it)."""
        with self._lock:
            return self._contiguous, tuple(sorted(self._beyond))

    def _settle(self, sequence: int, future: Future[None]) -> None:
        with self._lock:
            # A failed write keeps its place here: whoever asks again gets the failure.
            if future.exception() is None:
                self._waiting.pop(sequence, None)
                self._count(sequence)

    def _count(self, sequence: int) -> None:
        self._beyond.add(sequence)
        while self._contiguous + 1 in self._beyond:
            self._contiguous += 1
            self._beyond.remove(self._contiguous)
