"""Commits the changes of many session files in one thread; a second thread makes checkpoints.

Files take turns, a group of changes each, so that a session with much to write keeps no other
waiting, and one whose file is locked by another program is tried again after the others.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from edge_mil.errors import StoreError
from edge_mil.store.change import Change
from edge_mil.store.connection import BUSY_S
from edge_mil.store.faults import UNREADABLE, store_error
from edge_mil.store.seal import DamagedRowsError

LOG = logging.getLogger("edge_mil.store")

GROUP = 16
"""Changes of one transaction at most: 4 cost 1.5 times one
(`docs/design/serving-and-durability.md`, "Group commit")."""
CHECKPOINT_S = 0.5
"""Pause between checkpoints. In a thread of their own: within a commit they are all of its p99."""
RETRY_S = 0.05
"""Pause before a file that another program has locked is tried again; others go on meanwhile."""

Apply = Callable[[sqlite3.Connection, Change], None]
Connect = Callable[[], sqlite3.Connection]


class CommitQueue:
    """The changes of one file that wait to be committed.

    Attributes:
        path: The file.
        failed: Why nothing can be written any more; None while all is well.
    """

    def __init__(
        self, committer: Committer, path: Path, connection: sqlite3.Connection, connect: Connect
    ) -> None:
        self.path = path
        self.failed: StoreError | None = None
        self._committer, self._connection, self._connect = committer, connection, connect
        self._pending: collections.deque[tuple[Change, Future[None]]] = collections.deque()
        self._closing: Future[None] | None = None
        self._changed = False
        self._locked_since: float | None = None
        # Held by the checkpoint while it has a connection, and by the end of the file.
        self._checkpointing = threading.Lock()
        # A file that is locked is tried again later; its thread must not wait for it.
        connection.execute("PRAGMA busy_timeout=0")

    def append(self, change: Change) -> Future[None]:
        """Queue a change; the future is done when it is durable, or holds a StoreError."""
        future: Future[None] = Future()
        with self._committer.lock:
            if self._closing is not None:
                future.set_exception(StoreError(f"The session file {self.path} is closed."))
                return future
            self._pending.append((change, future))
            self._committer.ready(self)
        return future

    def close(self) -> None:
        """Wait until all that was queued is written, and close the connection."""
        with self._committer.lock:
            if self._closing is None:
                self._closing = Future()
                self._committer.ready(self)
        self._closing.result()

    # In the thread that commits

    def has_work(self) -> bool:
        """Return whether something waits; with the committer's lock."""
        return bool(self._pending) or (self._closing is not None and not self._closing.done())

    def work(self, apply: Apply) -> bool:
        """Commit a group of what waits, or close; return False where the file is locked now."""
        with self._committer.lock:
            group = [self._pending.popleft() for _ in range(min(GROUP, len(self._pending)))]
        if group and not self._commit(group, apply):
            with self._committer.lock:
                self._pending.extendleft(reversed(group))
            return False
        with self._committer.lock:
            closing = None if self._pending else self._closing
        if closing is not None and not closing.done():
            with self._checkpointing:
                self._committer.forget(self)
                self._connection.close()
            closing.set_result(None)
        return True

    def _commit(self, group: list[tuple[Change, Future[None]]], apply: Apply) -> bool:
        """Commit changes as one transaction; return False where the file is locked just now."""
        connection = self._connection
        if self.failed is None:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if self._may_wait(error):
                    return False
                self.failed = store_error(self.path, error)
        if self.failed is None:
            try:
                for change, _ in group:
                    apply(connection, change)
                connection.execute("COMMIT")
                self._changed = True
            except (*UNREADABLE, DamagedRowsError) as error:
                self.failed = store_error(self.path, error)
            # The thread serves every session: one whose change cannot be written ends alone.
            except Exception:
                LOG.exception("a change of %s cannot be written", self.path)
                self.failed = StoreError(
                    f"A change of the session file {self.path} cannot be written; the log has the "
                    "details. Resume the session: nothing that was acknowledged is lost."
                )
            # A full disk has rolled the transaction back already.
            if connection.in_transaction:
                with contextlib.suppress(*UNREADABLE):
                    connection.execute("ROLLBACK")
        self._locked_since = None
        for _, future in group:
            if self.failed is None:
                future.set_result(None)
            else:
                future.set_exception(self.failed)
        return True

    def _may_wait(self, error: sqlite3.Error) -> bool:
        now = time.monotonic()
        self._locked_since = now if self._locked_since is None else self._locked_since
        return "locked" in str(error) and now - self._locked_since < BUSY_S

    # In the thread that makes checkpoints

    def checkpoint(self) -> None:
        """Copy what was committed since the last time from the log into the file."""
        with self._checkpointing:
            if not self._changed or (self._closing is not None and self._closing.done()):
                return
            self._changed = False
            with contextlib.suppress(*UNREADABLE), contextlib.closing(self._connect()) as own:
                own.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class Committer:
    """Two threads for all files that are added.

    Attributes:
        lock: Guards the queues of all files.
    """

    def __init__(self, apply: Apply) -> None:
        """Start the threads.

        Args:
            apply: Writes one change within a transaction.
        """
        self.lock = threading.Lock()
        self._apply = apply
        self._wake = threading.Condition(self.lock)
        self._ready: collections.deque[CommitQueue] = collections.deque()
        self._waiting: set[CommitQueue] = set()
        self._later: list[tuple[float, int, CommitQueue]] = []
        self._count = itertools.count()
        self._files: set[CommitQueue] = set()
        self._closed = threading.Event()
        for work, name in ((self._commit, "commit"), (self._make_checkpoints, "checkpoint")):
            threading.Thread(target=work, name=name, daemon=True).start()

    def add(self, path: Path, connection: sqlite3.Connection, connect: Connect) -> CommitQueue:
        """Return the queue of a file.

        Args:
            path: The file.
            connection: Only the queue uses it from now on, and closes it.
            connect: Returns a further connection, for one checkpoint.
        """
        added = CommitQueue(self, path, connection, connect)
        with self.lock:
            self._files.add(added)
        return added

    def ready(self, queue: CommitQueue) -> None:
        """Note that a queue has something to do; with the lock."""
        if queue not in self._waiting:
            self._waiting.add(queue)
            self._ready.append(queue)
            self._wake.notify()

    def forget(self, queue: CommitQueue) -> None:
        """Leave a queue that is closed out of the checkpoints."""
        with self.lock:
            self._files.discard(queue)

    def close(self) -> None:
        """End the threads; every queue was closed before."""
        self._closed.set()
        with self.lock:
            self._wake.notify()

    def _commit(self) -> None:
        while (queue := self._next()) is not None:
            done = queue.work(self._apply)
            with self.lock:
                if not done:
                    later = time.monotonic() + RETRY_S
                    heapq.heappush(self._later, (later, next(self._count), queue))
                    continue
                self._waiting.discard(queue)
                if queue.has_work():
                    self.ready(queue)

    def _next(self) -> CommitQueue | None:
        """Wait for a queue that has something to do; None at the end."""
        with self.lock:
            while True:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready.append(heapq.heappop(self._later)[2])
                if self._ready:
                    return self._ready.popleft()
                if self._closed.is_set():
                    return None
                self._wake.wait(self._later[0][0] - now if self._later else None)

    def _make_checkpoints(self) -> None:
        while not self._closed.wait(CHECKPOINT_S):
            with self.lock:
                files = list(self._files)
            for queue in files:
                queue.checkpoint()
