"""Sessions that expire: those with an idle timeout, when no field came for so long.

The time is counted by the monotonic clock of this process, so that a device whose clock is set
while it runs ends no session. A restart of the service begins it anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from edge_mil.errors import EdgeMilError

LOG = logging.getLogger("edge_mil.service")

CHECK_EVERY_S = 1.0


class Expiry:
    """Knows when each session was used last; on the event loop only."""

    def __init__(
        self,
        expire: Callable[[str], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without sessions.

        Args:
            expire: Ends a session, where no stream is attached to it.
            clock: Seconds.
        """
        self._expire, self._clock = expire, clock
        self._last: dict[str, tuple[float, float]] = {}

    def begin(self, session_id: str, timeout_s: float) -> None:
        """Start to count for a session that was opened in this process, unless it is counted."""
        if session_id not in self._last:
            self.note(session_id, timeout_s)

    def note(self, session_id: str, timeout_s: float) -> None:
        """Note that a session is used now; one without a timeout never expires."""
        if timeout_s:
            self._last[session_id] = (self._clock(), timeout_s)

    def forget(self, session_id: str) -> None:
        """Note that a session takes no more fields."""
        self._last.pop(session_id, None)

    def due(self) -> list[str]:
        """Return the sessions that were idle for their timeout."""
        now = self._clock()
        return [name for name, (last, timeout_s) in self._last.items() if now - last >= timeout_s]

    async def run(self) -> None:
        """End sessions as they become due, until this task is cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            for session_id in self.due():
                self.forget(session_id)
                try:
                    await self._expire(session_id)
                except EdgeMilError as error:
                    LOG.warning("session %s cannot expire: %s", session_id, error)
