"""One thread that owns an accelerator: it batches what several sessions ask, and never stops.

Whoever wants features calls `run` from any thread and waits. The owner opens the executor, takes
requests from a bounded queue, joins those that come within a deadline into one batch, and fills
the next batch while the device still runs the one before. CUDA's contexts belong to threads, so no
other thread ever touches the device (`runtime.md`, section 5).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_mil.backends.inputs import check_arrays
from edge_mil.errors import BackendLostError, EdgeMilError, FrameError
from edge_mil.protocols import Network
from edge_mil.types import Float32Array

LOG = logging.getLogger("edge_mil.backends")

Arrays = Mapping[str, npt.NDArray[np.generic]]
Shapes = Mapping[str, tuple[str, tuple[int | None, ...]]]

DEADLINE_S = 0.002
"""How long a batch waits for the fields of other sessions; a batch takes several times as long."""
QUEUE_SIZE = 64
POLL_S = 0.1


class Executor(Protocol):
    """Runs batches; made, used and closed by one thread.

    Attributes:
        inputs: As `Network.inputs`.
        max_batch: Rows of one batch, at most.
        slots: Batches that may be under way at once.
    """

    inputs: Shapes
    max_batch: int
    slots: int

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Start one batch, the rows of all parts one after the other; need not wait for it.

        Raises:
            BackendLostError: The device does not answer.
        """

    def finish(self, slot: int) -> dict[str, Float32Array]:
        """Wait for a batch; the outputs are the caller's own copies.

        Raises:
            BackendLostError: The device does not answer.
        """

    def close(self) -> None:
        """Give the device's memory back."""


class NetworkExecutor:
    """A network that runs where it is called, as an executor: ONNX Runtime behind one thread."""

    slots = 1

    def __init__(self, network: Network, max_batch: int) -> None:
        self.inputs, self.max_batch = network.inputs, max_batch
        self._network = network
        self._given: dict[int, dict[str, npt.NDArray[np.generic]]] = {}

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Keep the batch until its outputs are asked for."""
        names = list(self.inputs)
        self._given[slot] = {name: np.concatenate([part[name] for part in parts]) for name in names}

    def finish(self, slot: int) -> dict[str, Float32Array]:
        """Run it."""
        return self._network.run(self._given.pop(slot))

    def close(self) -> None:
        """Close the network."""
        self._network.close()


@dataclass(slots=True, eq=False)
class _Request:
    arrays: Arrays
    rows: int
    answer: Future[dict[str, Float32Array]] = field(default_factory=Future)


class BatchingNetwork:
    """A `Network` that any thread may run, on an executor that one thread owns."""

    def __init__(
        self,
        open_executor: Callable[[], Executor],
        *,
        label: str,
        deadline_s: float = DEADLINE_S,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        """Start the owner, and wait until it has opened the executor.

        Args:
            open_executor: Is called by the owner.
            label: What it runs, for messages.
            deadline_s: How long a batch waits for other sessions.
            queue_size: Requests that wait at most; the next caller waits to be let in.

        Raises:
            EdgeMilError: What `open_executor` raised.
        """
        self._open_executor, self._label, self._deadline_s = open_executor, label, deadline_s
        self._waiting: queue.Queue[_Request | None] = queue.Queue(queue_size)
        self._held: _Request | None = None
        self._ending = False
        self._callers, self._lock = 0, threading.Lock()
        self._lost: BackendLostError | None = None
        opened: Future[tuple[Shapes, int]] = Future()
        self._owner = threading.Thread(
            target=self._own, args=(opened,), name=f"owner-{label}", daemon=True
        )
        self._owner.start()
        self._inputs, self._max_batch = opened.result()

    @property
    def inputs(self) -> Shapes:
        """Name of each input -> (numpy dtype name, shape); None is a dynamic axis."""
        return self._inputs

    def run(self, arrays: Arrays) -> dict[str, Float32Array]:
        """Run from any thread; more rows than a batch holds are run in turn.

        Raises:
            FrameError: An input's name, dtype or shape does not fit.
            BackendLostError: The device went away, or the network was closed.
        """
        rows = self._check(arrays)
        starts = range(0, max(1, rows), self._max_batch)
        requests = [
            _Request(
                {name: array[at : at + self._max_batch] for name, array in arrays.items()},
                min(self._max_batch, rows - at),
            )
            for at in starts
        ]
        with self._lock:
            self._callers += len(requests)
        try:
            for request in requests:
                self._put(request)
            answers = [self._answer(request) for request in requests]
        finally:
            with self._lock:
                self._callers -= len(requests)
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}

    def close(self) -> None:
        """Let what was asked for finish, give the device back, end the thread."""
        with self._lock:
            if self._lost is None:
                self._lost = BackendLostError(f"{self._label} is closed.")
        while self._owner.is_alive():
            try:
                self._waiting.put(None, timeout=POLL_S)
                break
            except queue.Full:
                continue
        self._owner.join()

    def _check(self, arrays: Arrays) -> int:
        check_arrays(self._label, self._inputs, arrays)
        counts = {len(arrays[name]) for name in self._inputs}
        if len(counts) != 1 or 0 in counts:
            raise FrameError(
                f"{self._label} wants one row or more, as many of each input, got {sorted(counts)}."
            )
        return counts.pop()

    def _put(self, request: _Request) -> None:
        while True:
            if self._lost is not None:
                raise self._lost
            try:
                self._waiting.put(request, timeout=POLL_S)
            except queue.Full:
                continue
            return

    def _answer(self, request: _Request) -> dict[str, Float32Array]:
        """Wait for an answer, and for no owner that is gone."""
        while not wait([request.answer], POLL_S).done:
            if not self._owner.is_alive() and not request.answer.done():
                raise self._lost or BackendLostError(f"{self._label} ended.")
        return request.answer.result()

    # The owner's thread

    def _own(self, opened: Future[tuple[Shapes, int]]) -> None:
        try:
            executor = self._open_executor()
        except BaseException as error:  # whoever made this network is told
            opened.set_exception(error)
            return
        opened.set_result((executor.inputs, executor.max_batch))
        running: deque[tuple[int, list[_Request]]] = deque()
        try:
            self._serve(executor, running)
        except Exception as error:  # the edge of a worker: the caller goes to the next backend
            self._lose(error, [request for _, batch in running for request in batch])
        finally:
            try:
                executor.close()
            except EdgeMilError as error:
                LOG.warning("%s: %s", self._label, error)

    def _serve(self, executor: Executor, running: deque[tuple[int, list[_Request]]]) -> None:
        free = deque(range(executor.slots))
        while True:
            if not free:
                self._finish(executor, running, free)
            first = self._next(block=not running)
            if first is not None:
                batch, slot = self._gather(first), free.popleft()
                running.append((slot, batch))
                executor.start(slot, [request.arrays for request in batch])
            elif running:
                self._finish(executor, running, free)
            else:
                return

    def _finish(
        self,
        executor: Executor,
        running: deque[tuple[int, list[_Request]]],
        free: deque[int],
    ) -> None:
        slot, batch = running[0]
        outputs = executor.finish(slot)
        running.popleft()
        free.append(slot)
        at = 0
        for request in batch:
            end = at + request.rows
            whole = len(batch) == 1
            part = outputs if whole else {n: a[at:end].copy() for n, a in outputs.items()}
            request.answer.set_result(part)
            at = end

    def _next(self, *, block: bool) -> _Request | None:
        """Return the next request; None when there is none now, or never again."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        try:
            request = self._waiting.get(block=block and not self._ending)
        except queue.Empty:
            return None
        self._ending = self._ending or request is None
        return request

    def _gather(self, first: _Request) -> list[_Request]:
        """Add what other callers ask within the deadline; nobody waits for callers not there."""
        batch, rows = [first], first.rows
        ends = time.monotonic() + self._deadline_s
        while rows < self._max_batch:
            left = ends - time.monotonic()
            try:
                alone = self._callers <= len(batch)
                more = self._waiting.get(block=not alone and left > 0, timeout=max(left, 0))
            except queue.Empty:
                break
            if more is None:
                self._ending = True
                break
            if rows + more.rows > self._max_batch:
                self._held = more
                break
            batch.append(more)
            rows += more.rows
        return batch

    def _lose(self, error: Exception, pending: list[_Request]) -> None:
        if isinstance(error, BackendLostError):
            lost = error
            LOG.error("%s", lost)
        else:
            lost = BackendLostError(f"{self._label} failed ({type(error).__name__}: {error}).")
            LOG.error("%s", lost, exc_info=error)
        with self._lock:
            self._lost = lost
        if self._held is not None:
            pending.append(self._held)
        while True:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                pending.append(waiting)
        for request in pending:
            if not request.answer.done():
                request.answer.set_exception(lost)
