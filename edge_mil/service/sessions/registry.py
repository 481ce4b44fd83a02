"""The sessions of this service: open in this process, or in the state directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from edge_mil.errors import EdgeMilError, RequestReusedError, StoreError
from edge_mil.service.limits import MAX_LIVE_SESSIONS
from edge_mil.service.models.registry import BundleRegistry, ServedBundle
from edge_mil.service.sessions.live_session import LiveSession
from edge_mil.session import SessionFolder, SessionSettings


class SessionRegistry:
    """Finds a session in this process, or opens it from the state directory."""

    def __init__(self, folder: SessionFolder, bundles: BundleRegistry) -> None:
        self.folder, self._bundles = folder, bundles
        self._live: dict[str, LiveSession] = {}
        self._refresh: asyncio.Future[None] | None = None
        self._opening = asyncio.Lock()

    async def create(self, bundle: ServedBundle, settings: SessionSettings) -> LiveSession:
        """Open a new session, or the one that the same request opened before.

        Raises:
            RequestReusedError: The request id was used with another body.
            BundleNotReadyError: The bundle is still loading.
            EdgeMilError: The settings do not fit the bundle, or nothing can be written.
        """
        async with self._opening:
            known = await self._session_of(settings.request_id)
            if known is not None:
                live = await self._open(known)
                if live.session.settings.request_digest != settings.request_digest:
                    raise RequestReusedError(
                        f"Request id {settings.request_id} opened session {known} with other "
                        "settings; use a new id for a new session.",
                        session=known,
                    )
                return live
            if not self.uses(bundle):
                bundle.take_next()
            model = bundle.ready()
            loop = asyncio.get_running_loop()
            session = await loop.run_in_executor(
                bundle.worker, lambda: self.folder.create(model, settings)
            )
            live = LiveSession(session, bundle, resumable=False)
            self._live[session.session_id] = live
            await self._release_idle(keep=live)
            return live

    @contextlib.asynccontextmanager
    async def use(self, session_id: str) -> AsyncIterator[LiveSession]:
        """Give a session for as long as the block lasts.

        Raises:
            SessionNotFoundError: There is none of that id.
            EdgeMilError: It cannot be opened.
        """
        live = self._live.get(session_id)
        if live is None or live.failed is not None:
            async with self._opening:
                live = await self._open(session_id)
        live.users += 1
        try:
            yield live
        finally:
            live.users -= 1

    def live(self, session_id: str) -> LiveSession | None:
        """Return a session if it is open in this process."""
        return self._live.get(session_id)

    def uses(self, bundle: ServedBundle) -> list[LiveSession]:
        """Return the sessions in use that run with a bundle."""
        return [live for live in self._live.values() if live.bundle is bundle and not live.idle]

    async def release(self, live: LiveSession) -> None:
        """Close a session's file in this process; it can be opened again."""
        self._live.pop(live.session.session_id, None)
        with contextlib.suppress(StoreError):
            await live.run(live.session.release)
        live.worker.shutdown(wait=False)

    async def release_all(self, bundle: ServedBundle | None = None) -> None:
        """Close the files of every session, or of those of one bundle."""
        for live in list(self._live.values()):
            if bundle is None or live.bundle is bundle:
                await self.release(live)

    def end_streams(self, reason: EdgeMilError) -> None:
        """Take the right to write from every stream: the service stops."""
        for live in self._live.values():
            if live.lease is not None:
                live.lease.revoke(reason)
            live.wake_watchers()

    async def _open(self, session_id: str) -> LiveSession:
        live = self._live.get(session_id)
        if live is not None and live.failed is not None:
            # What is in memory is ahead of the disk: only the disk counts.
            await self.release(live)
            live = None
        if live is not None:
            return live
        loop = asyncio.get_running_loop()
        summary = await loop.run_in_executor(None, self.folder.summary, session_id)
        bundle = self._bundles.by_digest(summary.bundle_digest)
        model = bundle.ready()
        session = await loop.run_in_executor(
            bundle.worker, lambda: self.folder.open(session_id, lambda _: model)
        )
        live = LiveSession(session, bundle, resumable=True)
        self._live[session_id] = live
        await self._release_idle(keep=live)
        return live

    async def _session_of(self, request_id: str) -> str | None:
        """Return the session that a request id opened before; None for a new one."""
        if not request_id:
            return None
        loop = asyncio.get_running_loop()
        if self._refresh is None:
            self._refresh = loop.run_in_executor(None, self.folder.refresh)
        try:
            # An index that is missing is made anew. It goes on when this caller gives up.
            await asyncio.shield(self._refresh)
        except EdgeMilError:
            self._refresh = None
            raise
        return await loop.run_in_executor(None, self.folder.of_request, request_id)

    async def _release_idle(self, keep: LiveSession) -> None:
        idle = [live for live in self._live.values() if live.idle and live is not keep]
        for live in idle[: max(0, len(self._live) - MAX_LIVE_SESSIONS)]:
            await self.release(live)
