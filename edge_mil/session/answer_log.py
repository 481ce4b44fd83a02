"""The answers of a session by sequence number, and which of them are durable."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass

from edge_mil.errors import SequenceError
from edge_mil.limits import MAX_SEQUENCE
from edge_mil.store import SessionReader


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An earlier answer.

    Attributes:
        payload_crc: CRC-32 of what the client had sent.
        answer: Serialised `edge_mil.v1.FieldResult`.
        durable: Done when the answer is on the disk and may be sent again.
    """

    payload_crc: int
    answer: bytes
    durable: Future[None]


class AnswerLog:
    """Knows every answer; thread-safe, since the writer thread of the store notes durability."""

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

    def require_new(self, sequence: int) -> None:
        """Check that a sequence number is valid and unused.

        Raises:
            SequenceError: It is not.
        """
        if not 1 <= sequence <= MAX_SEQUENCE:
            raise SequenceError(
                f"Sequence numbers go from 1 to {MAX_SEQUENCE}; got {sequence}.", sequence=sequence
            )
        if sequence in self._crc:
            raise _conflict(sequence)

    def replay(self, sequence: int, payload_crc: int) -> StoredAnswer | None:
        """Return the earlier answer to a field that is sent again; None for a new number.

        This is the one rule of replay: the same number with the same payload gets the same
        answer, and is never folded twice.

        Raises:
            SequenceError: The number was used for another payload.
        """
        earlier = self.answer(sequence)
        if earlier is not None and earlier.payload_crc != payload_crc:
            raise _conflict(sequence)
        return earlier

    def note(self, sequence: int, answer: StoredAnswer) -> None:
        """Add an answer; it counts as durable when its future is done without error."""
        with self._lock:
            self._crc[sequence] = answer.payload_crc
            self._waiting[sequence] = answer
            self.last = max(self.last, sequence)
        answer.durable.add_done_callback(lambda future: self._settle(sequence, future))

    def note_durable(self, sequence: int, payload_crc: int) -> None:
        """Add an answer that the store holds already."""
        with self._lock:
            self._crc[sequence] = payload_crc
            self.last = max(self.last, sequence)
            self._count(sequence)

    def answer(self, sequence: int) -> StoredAnswer | None:
        """Return the answer to a number; None for a new one."""
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
        """Return the number up to which all answers are durable, and the durable ones above it."""
        with self._lock:
            return self._contiguous, tuple(sorted(self._beyond))

    def _settle(self, sequence: int, future: Future[None]) -> None:
        with self._lock:
            # After a failed write the answer stays here, so that a replay gets the failure too.
            if future.exception() is None:
                self._waiting.pop(sequence, None)
                self._count(sequence)

    def _count(self, sequence: int) -> None:
        self._beyond.add(sequence)
        while self._contiguous + 1 in self._beyond:
            self._contiguous += 1
            self._beyond.remove(self._contiguous)


def _conflict(sequence: int) -> SequenceError:
    return SequenceError(
        f"Sequence number {sequence} was used for another field of this session; give every "
        "field its own number, counting up from 1.",
        sequence=sequence,
    )
