"""Sessions that are open in this process: their one writer, their watchers, and their worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge_mil.errors import (
    EdgeMilError,
    RequestReusedError,
    SessionBusyError,
    SessionClosedError,
    SessionFencedError,
    SessionNotFoundError,
    StoreError,
)
from edge_mil.rpc.results import encode_score
from edge_mil.service.models.registry import BundleRegistry, ServedBundle
from edge_mil.session import Session, SessionFolder, SessionSettings, SessionStatus
from edge_mil.v1 import edge_mil_pb2 as pb

LOG = logging.getLogger("edge_mil.service")
Value = TypeVar("Value")

MAX_LIVE_SESSIONS = 32
"""Sessions kept open; above it the idle ones are let go, and opened again when asked for."""


class WriteLease:
    """The right of one stream to write to a session, until another takes it away."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.reason: EdgeMilError | None = None

    def revoke(self, reason: EdgeMilError) -> None:
        """Take the right away; the stream ends with the reason."""
        if self.reason is None:
            self.reason = reason
            self.lost.set()


class LiveSession:
    """A session, who writes to it, and who watches it. Used from the event loop only.

    Attributes:
        session: The session; changed on its worker only.
        bundle: The bundle that it runs with.
        worker: Its one thread. Sessions of a bundle meet where the extractor runs: a CPU takes
            their fields in turn, an accelerator puts tiles of several into one batch.
        score: The newest durable score.
        writer: The stream that writes; None while there is none.
        resumable: Whether a stream was attached before and is gone (SUSPENDED).
        users: Calls that use the session now; it is not let go meanwhile.
        failed: Why its records can no longer be written; it must be opened again.
    """

    def __init__(self, session: Session, bundle: ServedBundle, *, resumable: bool) -> None:
        self.session, self.bundle, self.resumable = session, bundle, resumable
        name = f"session-{session.session_id[:8]}"
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.writer: WriteLease | None = None
        self.users = 0
        self.failed: StoreError | None = None
        self.score = score_of(session.standing())
        session.on_score = lambda standing: self.publish_soon(score_of(standing))
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
        if self.session.standing().closed:
            raise SessionClosedError(
                f"Session {self.session.session_id} is closed and takes no more fields; open a new "
                "one."
            )
        if self.writer is not None:
            if not takeover:
                raise SessionBusyError(
                    f"Another client is streaming to session {self.session.session_id}; wait for "
                    "it to end, or take the session over (takeover)."
                )
            self.writer.revoke(
                SessionFencedError(
                    f"Another client took session {self.session.session_id} over; this stream ends."
                )
            )
        self.writer = WriteLease()
        return self.writer

    def detach(self, writer: WriteLease) -> None:
        """Give the right back; the session can be resumed."""
        if self.writer is writer:
            self.writer = None
            self.resumable = True

    def publish(self, score: pb.Score) -> None:
        """Tell watchers of a durable score; an older revision than the newest is skipped."""
        if score.revision >= self.score.revision:
            self.score = score
            self._wake()

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

    def changed(self) -> None:
        """Wake the watchers: the state changed."""
        self._wake()

    def state(self) -> pb.SessionState.ValueType:
        """Return OPEN, SUSPENDED or CLOSED."""
        if self.session.standing().closed:
            return pb.SESSION_STATE_CLOSED
        if self.writer is None and self.resumable:
            return pb.SESSION_STATE_SUSPENDED
        return pb.SESSION_STATE_OPEN

    @property
    def idle(self) -> bool:
        """Whether nobody uses it."""
        return self.writer is None and self.users == 0

    def _fail(self, error: StoreError) -> None:
        if self.failed is None:
            LOG.error("session %s: %s", self.session.session_id, error)
        self.failed = error
        self._wake()

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()

    def _soon(self, work: Callable[[], None]) -> None:
        # The loop is closed when the service is going away; nobody watches then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)


class SessionRegistry:
    """Finds a session in this process, or opens it from the state directory."""

    def __init__(self, folder: SessionFolder, models: BundleRegistry) -> None:
        self.folder, self._models = folder, models
        self._live: dict[str, LiveSession] = {}
        self._requests: dict[str, str] | None = None
        self._opening = asyncio.Lock()

    async def create(self, bundle: ServedBundle, settings: SessionSettings) -> LiveSession:
        """Open a new session, or the one that the same request opened before.

        Raises:
            RequestReusedError: The request id was used with another body.
            BundleNotReadyError: The bundle is still loading.
            EdgeMilError: The settings do not fit the bundle, or nothing can be written.
        """
        async with self._opening:
            requests = await self._known_requests()
            known = requests.get(settings.request_id) if settings.request_id else None
            if known is not None:
                hosted = await self._open(known)
                if hosted.session.settings.request_digest != settings.request_digest:
                    raise RequestReusedError(
                        f"Request id {settings.request_id} opened session {known} with other "
                        "settings; use a new id for a new session.",
                        session=known,
                    )
                return hosted
            if not self.uses(bundle):
                bundle.take_next()
            model = bundle.ready()
            loop = asyncio.get_running_loop()
            session = await loop.run_in_executor(
                bundle.worker, lambda: self.folder.create(model, settings)
            )
            hosted = LiveSession(session, bundle, resumable=False)
            self._live[session.session_id] = hosted
            if settings.request_id:
                requests[settings.request_id] = session.session_id
            await self._let_idle_go(keep=hosted)
            return hosted

    @contextlib.asynccontextmanager
    async def use(self, session_id: str) -> AsyncIterator[LiveSession]:
        """Give a session for as long as the block lasts.

        Raises:
            SessionNotFoundError: There is none of that id.
            EdgeMilError: It cannot be opened.
        """
        hosted = self._live.get(session_id)
        if hosted is None or hosted.failed is not None:
            async with self._opening:
                hosted = await self._open(session_id)
        hosted.users += 1
        try:
            yield hosted
        finally:
            hosted.users -= 1

    def live(self, session_id: str) -> LiveSession | None:
        """Return a session if it is open in this process."""
        return self._live.get(session_id)

    def uses(self, bundle: ServedBundle) -> list[LiveSession]:
        """Return the sessions in use that run with a bundle."""
        return [h for h in self._live.values() if h.bundle is bundle and not h.idle]

    async def release(self, hosted: LiveSession) -> None:
        """Let a session's file go; it can be opened again."""
        self._live.pop(hosted.session.session_id, None)
        with contextlib.suppress(StoreError):
            await hosted.run(hosted.session.release)
        hosted.worker.shutdown(wait=False)

    async def release_all(self, bundle: ServedBundle | None = None) -> None:
        """Let every session go, or those of one bundle."""
        for hosted in list(self._live.values()):
            if bundle is None or hosted.bundle is bundle:
                await self.release(hosted)

    def end_streams(self, reason: EdgeMilError) -> None:
        """Take the right to write from every stream: the service stops."""
        for hosted in self._live.values():
            if hosted.writer is not None:
                hosted.writer.revoke(reason)
            hosted.changed()

    async def _open(self, session_id: str) -> LiveSession:
        hosted = self._live.get(session_id)
        if hosted is not None and hosted.failed is not None:
            # What is in memory is ahead of the disk: only the disk counts.
            await self.release(hosted)
            hosted = None
        if hosted is not None:
            return hosted
        loop = asyncio.get_running_loop()
        summary = await loop.run_in_executor(None, self.folder.summary, session_id)
        bundle = self._models.by_digest(summary.bundle_digest)
        model = bundle.ready()
        session = await loop.run_in_executor(
            bundle.worker, lambda: self.folder.open(session_id, lambda _: model)
        )
        hosted = LiveSession(session, bundle, resumable=True)
        self._live[session_id] = hosted
        await self._let_idle_go(keep=hosted)
        return hosted

    async def _known_requests(self) -> dict[str, str]:
        """Return request id -> session, read from the state directory once."""
        if self._requests is None:
            loop = asyncio.get_running_loop()
            self._requests = await loop.run_in_executor(None, self._read_requests)
        return self._requests

    def _read_requests(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for session_id in self.folder.ids():
            # A damaged session must not keep the others from being opened.
            with contextlib.suppress(StoreError, SessionNotFoundError):
                settings = self.folder.summary(session_id).settings
                if settings.request_id:
                    found[settings.request_id] = session_id
        return found

    async def _let_idle_go(self, keep: LiveSession | None = None) -> None:
        idle = [h for h in self._live.values() if h.idle and h is not keep]
        for hosted in idle[: max(0, len(self._live) - MAX_LIVE_SESSIONS)]:
            await self.release(hosted)


def score_of(standing: SessionStatus) -> pb.Score:
    """Return a session's standing as a score message."""
    return encode_score(
        standing.score,
        revision=standing.revision,
        fields=standing.fields_held,
        coverage=standing.coverage,
        as_of_sequence=standing.last_sequence if standing.as_of is None else standing.as_of,
    )
