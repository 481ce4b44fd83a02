"""The life cycle of a session in this process: opening, open, leaving, and then gone.

A state changes on the event loop and between two awaits, so that no call can see a session idle
and use it while another lets it go. Whoever meets a session that is opening or leaving waits for
the task that changes it, and looks it up again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from edge_mil.service.models.registry import ServedBundle
from edge_mil.service.sessions.live_session import LiveSession

OPENING: Literal["opening"] = "opening"
OPEN: Literal["open"] = "open"
LEAVING: Literal["leaving"] = "leaving"

SlotState = Literal["opening", "open", "leaving"]


class SessionSlot:
    """One session that is opening, open or leaving.

    Attributes:
        state: Which of the three.
        live: The session; None while it is opening.
        bundle: The bundle that it runs with; None until it is known.
        task: What opens it, or closes it; done while it is open.
    """

    def __init__(self) -> None:
        self.state: SlotState = OPENING
        self.live: LiveSession | None = None
        self.bundle: ServedBundle | None = None
        self.task: asyncio.Task[None]

    @staticmethod
    def opened(live: LiveSession) -> SessionSlot:
        """Return the slot of a session that was just made."""
        slot = SessionSlot()
        slot.start(_nothing())
        slot.open(live)
        return slot

    @property
    def idle(self) -> bool:
        """Whether it is open, and no stream and no call uses it."""
        return self.state == OPEN and self.live is not None and self.live.idle

    def open(self, live: LiveSession) -> None:
        """The session can be used from now on."""
        self.state, self.live, self.bundle = OPEN, live, live.bundle

    def leave(self) -> None:
        """The session can no longer be used."""
        assert self.state == OPEN
        self.state = LEAVING

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what changes the state; it goes on when the call that asked for it ends."""
        self.task = asyncio.ensure_future(work)
        self.task.add_done_callback(settled)
        return self.task


def settled(task: asyncio.Future[Any]) -> None:
    """Read the error of a task that nobody may wait for any more; each waiter gets it too."""
    if not task.cancelled():
        task.exception()


async def _nothing() -> None:
    """Be done at once."""
