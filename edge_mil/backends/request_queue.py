"""Requests of many threads, joined into batches for the one thread that owns the device."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from edge_mil.errors import BackendLostError
from edge_mil.protocols import Arrays
from edge_mil.types import Float32Array

POLL_S = 0.1
"""How often a waiting thread checks whether the other side has ended."""


@dataclass(slots=True, eq=False)
class Request:
    """Rows that one caller wants run, and where their outputs go."""

    arrays: Arrays
    rows: int
    answer: Future[dict[str, Float32Array]] = field(default_factory=Future)


class RequestQueue:
    """A bounded queue: callers put requests, the owner of the device takes whole batches.

    Attributes:
        error: Why no request is taken any more; None while the queue is open.
    """

    def __init__(self, size: int, deadline_s: float) -> None:
        """Let `size` requests wait at most, and a batch `deadline_s` for other callers."""
        self.error: BackendLostError | None = None
        self._deadline_s = deadline_s
        self._requests: queue.Queue[Request | None] = queue.Queue(size)
        self._left_over: Request | None = None
        self._ending = False
        self._expected, self._lock = 0, threading.Lock()

    # Callers

    @contextlib.contextmanager
    def expecting(self, count: int) -> Iterator[None]:
        """Announce requests that come and wait for answers while the block lasts."""
        with self._lock:
            self._expected += count
        try:
            yield
        finally:
            with self._lock:
                self._expected -= count

    def put(self, request: Request) -> None:
        """Add a request; wait while the queue is full.

        Raises:
            BackendLostError: The queue is closed.
        """
        while True:
            if self.error is not None:
                raise self.error
            try:
                self._requests.put(request, timeout=POLL_S)
            except queue.Full:
                continue
            return

    def close(self, error: BackendLostError, owner: threading.Thread) -> None:
        """Refuse further requests with `error`, and end the owner after those that are in."""
        with self._lock:
            self.error = self.error or error
        while owner.is_alive():
            try:
                self._requests.put(None, timeout=POLL_S)
                return
            except queue.Full:
                continue

    # The owner of the device

    def take(self, max_rows: int, *, block: bool) -> list[Request]:
        """Return the next batch; an empty one when there is none now, or never again."""
        first, self._left_over = self._left_over, None
        if first is None:
            try:
                first = self._requests.get(block=block and not self._ending)
            except queue.Empty:
                return []
        if first is None:
            self._ending = True
            return []
        return self._join(first, max_rows)

    def _join(self, first: Request, max_rows: int) -> list[Request]:
        """Add requests that come within the deadline; do not wait where none is expected."""
        batch, rows = [first], first.rows
        ends = time.monotonic() + self._deadline_s
        while rows < max_rows:
            left = ends - time.monotonic()
            expected = self._expected > len(batch)
            try:
                request = self._requests.get(block=expected and left > 0, timeout=max(left, 0))
            except queue.Empty:
                break
            if request is None:
                self._ending = True
                break
            if rows + request.rows > max_rows:
                self._left_over = request
                break
            batch.append(request)
            rows += request.rows
        return batch

    def fail(self, error: BackendLostError, running: list[Request]) -> None:
        """Answer what runs, what waits and what comes with an error."""
        with self._lock:
            self.error = error
        pending: list[Request | None] = [*running, self._left_over]
        with contextlib.suppress(queue.Empty):
            while True:
                pending.append(self._requests.get_nowait())
        for request in pending:
            if request is not None and not request.answer.done():
                request.answer.set_exception(error)
