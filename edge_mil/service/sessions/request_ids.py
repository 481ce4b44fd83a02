"""The sessions that request ids opened before: the same request gets the same session."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from edge_mil.errors import EdgeMilError
from edge_mil.service.sessions.life_cycle import settled
from edge_mil.session import SessionFolder


class RequestIds:
    """Asks the index of sessions, once it has been brought up to date; on the event loop only."""

    def __init__(self, folder: SessionFolder, threads: ThreadPoolExecutor) -> None:
        self._folder, self._threads = folder, threads
        self._refresh: asyncio.Future[None] | None = None

    async def session_of(self, request_id: str) -> str | None:
        """Return the session that a request id opened; None for a new one.

        Raises:
            StoreError: The state directory cannot be read, or the index not written.
        """
        if not request_id:
            return None
        loop = asyncio.get_running_loop()
        if self._refresh is None:
            self._refresh = loop.run_in_executor(self._threads, self._folder.refresh)
            self._refresh.add_done_callback(settled)
        try:
            # An index that is missing is made anew. It goes on when this caller gives up.
            await asyncio.shield(self._refresh)
        except EdgeMilError:
            self._refresh = None
            raise
        return await loop.run_in_executor(self._threads, self._folder.of_request, request_id)
