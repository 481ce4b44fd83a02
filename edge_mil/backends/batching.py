"""A network on an accelerator: one thread owns the device and batches what several sessions ask.

Any thread calls `run` and waits. The owner opens the executor, takes requests from a bounded
queue, joins those that come within a deadline into one batch, and fills the next batch while the
device still runs the one before. A CUDA context belongs to a thread, so no other thread touches
the device (`docs/design/quantization-and-runtime.md`, "TensorRT").
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait

import numpy as np

from edge_mil.backends.checks import check_arrays
from edge_mil.backends.executor import Executor
from edge_mil.backends.request_queue import POLL_S, Request, RequestQueue
from edge_mil.errors import BackendLostError, EdgeMilError, FrameError
from edge_mil.protocols import Arrays, InputTypes
from edge_mil.types import Float32Array

LOG = logging.getLogger("edge_mil.backends")

DEADLINE_S = 0.002
"""How long a batch waits for the fields of other sessions; a batch takes several times as long."""
QUEUE_SIZE = 64


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
            label: Name of the network in messages.
            deadline_s: How long a batch waits for other sessions.
            queue_size: Requests that wait at most; the next caller waits for room.

        Raises:
            EdgeMilError: What `open_executor` raised.
        """
        self._open_executor, self._label = open_executor, label
        self._queue = RequestQueue(queue_size, deadline_s)
        opened: Future[tuple[InputTypes, int]] = Future()
        self._owner = threading.Thread(
            target=self._own, args=(opened,), name=f"owner-{label}", daemon=True
        )
        self._owner.start()
        self._inputs, self._max_batch = opened.result()

    @property
    def inputs(self) -> InputTypes:
        return self._inputs

    def run(self, arrays: Arrays) -> dict[str, Float32Array]:
        """Run from any thread; more rows than a batch holds are run in turn; see `Network.run`."""
        rows = self._check(arrays)
        requests = [
            Request(
                {name: array[first : first + self._max_batch] for name, array in arrays.items()},
                min(self._max_batch, rows - first),
            )
            for first in range(0, rows, self._max_batch)
        ]
        with self._queue.expecting(len(requests)):
            for request in requests:
                self._queue.put(request)
            answers = [self._answer(request) for request in requests]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}

    def close(self) -> None:
        """Let the requests that were made finish, free the device, end the thread."""
        self._queue.close(BackendLostError(f"{self._label} is closed."), self._owner)
        self._owner.join()

    def _check(self, arrays: Arrays) -> int:
        """Return the number of rows."""
        check_arrays(self._label, self._inputs, arrays)
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1 or 0 in counts:
            raise FrameError(
                f"{self._label} wants one row or more, as many of each input, got {sorted(counts)}."
            )
        return counts.pop()

    def _answer(self, request: Request) -> dict[str, Float32Array]:
        """Wait for an answer as long as the owner lives."""
        while not wait([request.answer], POLL_S).done:
            if not self._owner.is_alive() and not request.answer.done():
                raise self._queue.error or BackendLostError(f"{self._label} ended.")
        return request.answer.result()

    # The owner's thread

    def _own(self, opened: Future[tuple[InputTypes, int]]) -> None:
        try:
            executor = self._open_executor()
        except BaseException as error:  # raised again in the thread that makes this network
            opened.set_exception(error)
            return
        opened.set_result((executor.inputs, executor.max_batch))
        running: deque[tuple[int, list[Request]]] = deque()
        try:
            self._serve(executor, running)
        except Exception as error:  # the edge of a worker: the caller goes to the next backend
            lost = self._lost(error)
            self._queue.fail(lost, [request for _, batch in running for request in batch])
        finally:
            try:
                executor.close()
            except EdgeMilError as error:
                LOG.warning("%s: %s", self._label, error)

    def _serve(self, executor: Executor, running: deque[tuple[int, list[Request]]]) -> None:
        """Keep every slot of the executor busy until the queue ends."""
        free = deque(range(executor.slots))
        while True:
            if not free:
                free.append(_finish(executor, running))
            batch = self._queue.take(executor.max_batch, block=not running)
            if batch:
                slot = free.popleft()
                running.append((slot, batch))
                executor.start(slot, [request.arrays for request in batch])
            elif running:
                free.append(_finish(executor, running))
            else:
                return

    def _lost(self, error: Exception) -> BackendLostError:
        if isinstance(error, BackendLostError):
            LOG.error("%s", error)
            return error
        lost = BackendLostError(f"{self._label} failed ({type(error).__name__}: {error}).")
        LOG.error("%s", lost, exc_info=error)
        return lost


def _finish(executor: Executor, running: deque[tuple[int, list[Request]]]) -> int:
    """Answer the requests of the oldest batch; return the slot that is free now."""
    slot, batch = running[0]
    outputs = executor.finish(slot)
    running.popleft()
    first = 0
    for request in batch:
        end = first + request.rows
        alone = len(batch) == 1
        rows = outputs if alone else {n: a[first:end].copy() for n, a in outputs.items()}
        request.answer.set_result(rows)
        first = end
    return slot
