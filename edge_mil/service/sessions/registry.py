"""The sessions of this service: open in this process, or in the state directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edge_mil.errors import (
    EdgeMilError,
    RequestReusedError,
    ServiceBusyError,
    SessionStateError,
    StoreError,
)
from edge_mil.service.limits import MAX_LIVE_SESSIONS
from edge_mil.service.models.registry import BundleRegistry, ServedBundle
from edge_mil.service.sessions.expiry import Expiry
from edge_mil.service.sessions.life_cycle import OPEN, SessionSlot, settled
from edge_mil.service.sessions.live_session import LiveSession, WriteLease
from edge_mil.service.sessions.messages import score_message
from edge_mil.service.sessions.request_ids import RequestIds
from edge_mil.session import SessionFolder, SessionSettings

Value = TypeVar("Value")

OPENERS = 4
"""Threads that open session files: one that takes long does not keep others waiting."""


class SessionRegistry:
    """Finds a session in this process, or opens it from the state directory.

    On the event loop: what happens between two awaits happens at once (`life_cycle`).
    """

    def __init__(self, folder: SessionFolder, bundles: BundleRegistry) -> None:
        self.folder, self._bundles = folder, bundles
        self._slots: dict[str, SessionSlot] = {}
        self._creating: dict[str, asyncio.Task[str]] = {}
        self._creations: set[asyncio.Task[str]] = set()
        self._beginning: list[ServedBundle] = []
        self.expiry = Expiry(self._expire)
        self._openers = ThreadPoolExecutor(OPENERS, thread_name_prefix="open")
        self._requests = RequestIds(folder, self._openers)

    # Finding and opening

    @contextlib.asynccontextmanager
    async def create(
        self, bundle: ServedBundle, settings: SessionSettings
    ) -> AsyncIterator[LiveSession]:
        """Open a new session, or the one that the same request opened before, and give it.

        It is opened also where the client goes away meanwhile: the same request finds it then.

        Raises:
            RequestReusedError: The request id was used with another body.
            BundleNotReadyError: The bundle is still loading.
            ServiceBusyError: All sessions that may be open are in use.
            EdgeMilError: The settings do not fit the bundle, or nothing can be written.
        """
        key = settings.request_id
        task = self._creating.get(key) if key else None
        if task is None:
            task = asyncio.ensure_future(self._create(bundle, settings))
            if key:
                self._creating[key] = task
                task.add_done_callback(lambda _: self._creating.pop(key, None))
            self._creations.add(task)
            task.add_done_callback(self._creations.discard)
            task.add_done_callback(settled)
        session_id = await asyncio.shield(task)
        async with self.use(session_id) as live:
            if key and live.session.settings.request_digest != settings.request_digest:
                raise RequestReusedError(
                    f"Request id {key} opened session {session_id} with other settings; use a new "
                    "id for a new session.",
                    session=session_id,
                )
            yield live

    @contextlib.asynccontextmanager
    async def use(self, session_id: str, *, writes: bool = False) -> AsyncIterator[LiveSession]:
        """Give a session for as long as the block lasts.

        Args:
            session_id: Its id.
            writes: Whether a stream will be attached: it may open a session although all that may
                be open are being read.

        Raises:
            SessionNotFoundError: There is none of that id.
            ServiceBusyError: All sessions that may be open are in use.
            EdgeMilError: It cannot be opened.
        """
        live = await self._acquire(session_id, writes=writes)
        try:
            yield live
        finally:
            live.users -= 1

    def attach(self, live: LiveSession, *, takeover: bool) -> WriteLease:
        """Give the right to write to a session, within what the service streams at once.

        Raises:
            ServiceBusyError: As many sessions as the service states are being streamed to.
            EdgeMilError: As `LiveSession.attach`.
        """
        attached = sum(other.lease is not None for other in self._open())
        if live.lease is None and attached >= MAX_LIVE_SESSIONS:
            raise ServiceBusyError(
                f"This service reads {MAX_LIVE_SESSIONS} slides at once (max_sessions), and that "
                "many streams are attached; end one of them, or try again.",
                reason="TOO_MANY_SESSIONS",
                max_sessions=MAX_LIVE_SESSIONS,
            )
        lease = live.attach(takeover=takeover)
        self._note_use(live)
        return lease

    def detach(self, live: LiveSession, lease: WriteLease) -> None:
        """Take the right to write back; the idle time of the session begins."""
        live.detach(lease)
        self._note_use(live)

    def live(self, session_id: str) -> LiveSession | None:
        """Return a session if it is open in this process."""
        slot = self._slots.get(session_id)
        return slot.live if slot is not None and slot.state == OPEN else None

    def uses(self, bundle: ServedBundle) -> int:
        """Return how many sessions run with a bundle now, or are being opened with it."""
        return self._beginning.count(bundle) + sum(
            slot.bundle is bundle and not slot.idle for slot in self._slots.values()
        )

    # Leaving

    async def release_bundle(self, bundle: ServedBundle, unload: Callable[[], None]) -> None:
        """Close the idle sessions of a bundle that is not in use.

        Args:
            bundle: The bundle.
            unload: Called in the same step in which it is found unused, so that no session is
                opened with it from then on.

        Raises:
            SessionStateError: A session uses it.
        """
        used = self.uses(bundle)
        if used:
            raise SessionStateError(
                f"Bundle {bundle.name} cannot be unloaded now: {used} sessions use it; try again "
                "later.",
                reason="BUNDLE_IN_USE",
            )
        unload()
        await _all(self._leave(slot) for slot in self._with(bundle))

    async def release_all(self) -> None:
        """Close the files of every session: the service stops."""
        await _all([*self._creations, *(slot.task for slot in self._slots.values())])
        await _all(self._leave(slot) for slot in list(self._slots.values()))
        self._openers.shutdown(wait=True, cancel_futures=True)

    def end_streams(self, reason: EdgeMilError) -> None:
        """Take the right to write from every stream: the service stops."""
        for live in self._open():
            if live.lease is not None:
                live.lease.revoke(reason)
            live.wake_watchers()

    # The life cycle

    async def _acquire(self, session_id: str, *, writes: bool) -> LiveSession:
        while True:
            slot = self._slots.get(session_id)
            if slot is None:
                self._make_room(force=writes)
                slot = self._add(session_id, lambda s: self._load(session_id, s))
            live = slot.live
            if slot.state == OPEN and live is not None:
                if live.failed is None:
                    live.users += 1
                    # The one that was used longest ago comes first, and leaves first.
                    self._slots[session_id] = self._slots.pop(session_id)
                    return live
                # What is in memory is ahead of the disk: only the disk counts.
                self._leave(slot)
            await asyncio.shield(slot.task)

    async def _load(self, session_id: str, slot: SessionSlot) -> LiveSession:
        summary = await self._in_thread(lambda: self.folder.summary(session_id))
        bundle = self._bundles.by_digest(summary.bundle_digest)
        model, slot.bundle = bundle.ready(), bundle
        session = await self._in_thread(lambda: self.folder.open(session_id, lambda _: model))
        if not summary.closed:
            self.expiry.begin(session_id, summary.settings.idle_timeout_s)
        return LiveSession(session, bundle, resumable=True)

    async def _create(self, bundle: ServedBundle, settings: SessionSettings) -> str:
        known = await self._requests.session_of(settings.request_id)
        if known is not None:
            return known
        self._make_room()
        if not self.uses(bundle):
            bundle.take_next()
        model = bundle.ready()
        self._beginning.append(bundle)
        try:
            session = await self._in_thread(lambda: self.folder.create(model, settings))
        finally:
            self._beginning.remove(bundle)
        slot = SessionSlot.opened(LiveSession(session, bundle, resumable=False))
        self._slots[session.session_id] = slot
        self.expiry.begin(session.session_id, settings.idle_timeout_s)
        return session.session_id

    def _add(
        self, session_id: str, load: Callable[[SessionSlot], Awaitable[LiveSession]]
    ) -> SessionSlot:
        slot = SessionSlot()

        async def opening() -> None:
            try:
                slot.open(await load(slot))
            except BaseException:
                self._slots.pop(session_id, None)
                raise

        self._slots[session_id] = slot
        slot.start(opening())
        return slot

    def _leave(self, slot: SessionSlot) -> asyncio.Task[None]:
        """Start to close an open session's file; a call that wants it waits for the end."""
        live = slot.live
        if slot.state != OPEN or live is None:
            return slot.task
        slot.leave()

        async def leaving() -> None:
            try:
                with contextlib.suppress(StoreError):
                    await live.run(live.session.release)
                live.worker.shutdown(wait=False)
            finally:
                self._slots.pop(live.session.session_id, None)

        return slot.start(leaving())

    def _note_use(self, live: LiveSession) -> None:
        self.expiry.note(live.session.session_id, live.session.settings.idle_timeout_s)

    async def _expire(self, session_id: str) -> None:
        """Close a session whose idle time is over; one that is streamed to is not idle."""
        async with self.use(session_id, writes=True) as live:
            if live.lease is not None:
                self._note_use(live)
                return
            await live.run(live.session.expire)
            live.publish(score_message(live.session.status()))
            live.wake_watchers()

    def _make_room(self, *, force: bool = False) -> None:
        """Let an idle session go where as many are open as may be, those that stream apart.

        Raises:
            ServiceBusyError: None is idle.
        """
        unattached = [s for s in self._slots.values() if s.live is None or s.live.lease is None]
        if len(unattached) < MAX_LIVE_SESSIONS:
            return
        idle = next((slot for slot in unattached if slot.idle), None)
        if idle is not None:
            self._leave(idle)
        elif not force:
            raise ServiceBusyError(
                f"This service keeps {MAX_LIVE_SESSIONS} sessions open beside those that are "
                "streamed to, and all are in use; end a watcher, or try again.",
                reason="TOO_MANY_SESSIONS",
                max_sessions=MAX_LIVE_SESSIONS,
            )

    def _open(self) -> list[LiveSession]:
        return [s.live for s in self._slots.values() if s.state == OPEN and s.live is not None]

    def _with(self, bundle: ServedBundle) -> list[SessionSlot]:
        return [slot for slot in self._slots.values() if slot.bundle is bundle]

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._openers, work)


async def _all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait for tasks; what one of them raises concerns those who asked for it."""
    await asyncio.gather(*tasks, return_exceptions=True)
