"""A session that is open in this process: its one writer, its watchers and its worker thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge_mil.errors import (
    EdgeMilError,
    SessionBusyError,
    SessionClosedError,
    SessionFencedError,
    StoreError,
)
from edge_mil.service.limits import MAX_FIELDS_PER_SESSION
from edge_mil.service.models.registry import ServedBundle
from edge_mil.service.sessions.messages import score_message, session_message, state_of_closed
from edge_mil.session import Session
from edge_mil.v1 import edge_mil_pb2 as pb

LOG = logging.getLogger("edge_mil.service")
Value = TypeVar("Value")


class WriteLease:
    """The right of one stream to write to a session, until another takes it away.

    Attributes:
        lost: Set when the right was taken away.
        reason: Why; None while the stream has it.
    """

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.reason: EdgeMilError | None = None

    def revoke(self, reason: EdgeMilError) -> None:
        """Take the right away; the stream ends with the reason."""
        if self.reason is None:
            self.reason = reason
            self.lost.set()


class LiveSession:
    """A session with its writer and its watchers; used from the event loop only.

    Attributes:
        session: The session; changed on its worker only.
        bundle: The bundle that it runs with.
        worker: Its one thread. Sessions of a bundle meet where the extractor runs: a CPU takes
            their fields in turn, an accelerator puts tiles of several into one batch.
        score: The newest durable score.
        lease: The right of the stream that writes; None while there is none.
        resumable: Whether a stream was attached before and is gone (SUSPENDED).
        room: Counts down the fields that may be received and processed at once.
        users: Calls that use the session now; it stays open meanwhile.
        failed: Why its records can no longer be written; it must be opened again.
    """

    def __init__(self, session: Session, bundle: ServedBundle, *, resumable: bool) -> None:
        self.session, self.bundle, self.resumable = session, bundle, resumable
        name = f"session-{session.session_id[:8]}"
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.lease: WriteLease | None = None
        self.room = asyncio.Semaphore(MAX_FIELDS_PER_SESSION)
        self.users = 0
        self.failed: StoreError | None = None
        self.score = score_message(session.status())
        session.on_score = lambda status: self.publish_soon(score_message(status))
        self._watchers: set[asyncio.Event] = set()
        self._loop = asyncio.get_running_loop()

    async def run(self, work: Callable[[], Value]) -> Value:
        """Run something on the session's worker, after what was asked of it before.

        It goes on when the caller is cancelled: a client that goes away never leaves a session
        half changed.
        """
        return await asyncio.shield(self._loop.run_in_executor(self.worker, work))

    def attach(self, *, takeover: bool) -> WriteLease:
        """Give the right to write.

        Raises:
            SessionClosedError: The session is closed.
            SessionBusyError: Another stream has it, and `takeover` was not asked.
        """
        status = self.session.status()
        if status.expired:
            raise SessionClosedError(
                f"Session {self.session.session_id} expired, since no field came for "
                f"{self.session.settings.idle_timeout_s:g} s; open a new one. What it holds stays.",
                reason="SESSION_EXPIRED",
            )
        if status.closed:
            raise SessionClosedError(
                f"Session {self.session.session_id} is closed and takes no more fields; open a new "
                "one."
            )
        if self.lease is not None:
            if not takeover:
                raise SessionBusyError(
                    f"Another client is streaming to session {self.session.session_id}; wait for "
                    "it to end, or take the session over (takeover)."
                )
            self.lease.revoke(
                SessionFencedError(
                    f"Another client took session {self.session.session_id} over; this stream ends."
                )
            )
        self.lease = WriteLease()
        return self.lease

    def detach(self, lease: WriteLease) -> None:
        """Give the right back; the session can be resumed."""
        if self.lease is lease:
            self.lease = None
            self.resumable = True

    def publish(self, score: pb.Score) -> None:
        """Tell watchers of a durable score; an older revision than the newest is skipped."""
        if score.revision >= self.score.revision:
            self.score = score
            self.wake_watchers()

    def publish_soon(self, score: pb.Score) -> None:
        """Tell watchers, from any thread."""
        self._soon(lambda: self.publish(score))

    def fail_soon(self, error: StoreError) -> None:
        """Note from any thread that the records cannot be written any more."""
        self._soon(lambda: self._fail(error))

    @contextlib.contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """Give an event that is set at each change, as long as the block lasts."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    def wake_watchers(self) -> None:
        """Set the event of every watcher: the score or the state changed."""
        for event in self._watchers:
            event.set()

    def state(self) -> pb.SessionState.ValueType:
        """Return OPEN, SUSPENDED, CLOSED or EXPIRED."""
        status = self.session.status()
        if status.closed:
            return state_of_closed(expired=status.expired)
        if self.lease is None and self.resumable:
            return pb.SESSION_STATE_SUSPENDED
        return pb.SESSION_STATE_OPEN

    def message(self) -> pb.Session:
        """Return the session's status as a message."""
        return session_message(self.session, self.state(), self.bundle.info())

    @property
    def idle(self) -> bool:
        """Whether no stream and no call uses it."""
        return self.lease is None and self.users == 0

    def _fail(self, error: StoreError) -> None:
        if self.failed is None:
            LOG.error("session %s: %s", self.session.session_id, error)
        self.failed = error
        self.wake_watchers()

    def _soon(self, work: Callable[[], None]) -> None:
        # The loop is closed when the service is stopping; nobody watches then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)
