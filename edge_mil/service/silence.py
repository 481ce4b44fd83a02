"""How long a client may keep the service waiting, and what it is told when that is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from edge_mil.errors import ClientSilentError
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.rpc.frames import MAX_FRAME_BYTES
from edge_mil.service.limits import (
    CHUNK_S,
    IDLE_STREAM_S,
    SLOWEST_BYTES_PER_S,
    START_S,
)

LOOK_EVERY_S = 1.0
STREAM_IDLE = "STREAM_IDLE"
"""Reason of a stream that was ended because nothing was sent on it."""


class SilentStreams:
    """Streams whose first message has not come; where there are too many, the oldest one ends.

    A client of ours sends it at once, so a crowd that says nothing keeps nobody out. On the event
    loop only.
    """

    def __init__(self, most: int, within_s: float = START_S) -> None:
        self._most, self._within_s = most, within_s
        self._waiting: dict[asyncio.Event, None] = {}

    async def first_message(self, incoming: AsyncIterator[Any]) -> Any:
        """Return the first message of a stream, None where the client sends none.

        Raises:
            ClientSilentError: Nothing came in time, or before others needed the room.
        """
        if len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.set()
        ended = asyncio.Event()
        self._waiting[ended] = None
        message = asyncio.ensure_future(_next(incoming))
        crowded = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait(
                {message, crowded}, timeout=self._within_s, return_when=asyncio.FIRST_COMPLETED
            )
            if message.done():
                return message.result()
        finally:
            self._waiting.pop(ended, None)
            message.cancel()
            crowded.cancel()
        raise ClientSilentError(
            f"The first message of the stream did not come within {self._within_s:g} s, or before "
            "other clients needed the room; call again when there is something to send."
        )


async def next_message(incoming: AsyncIterator[Any], within_s: float, what: str) -> Any:
    """Return the next message of a stream, None at its end.

    Args:
        incoming: The messages.
        within_s: How long to wait.
        what: What is waited for, for the message.

    Raises:
        ClientSilentError: Nothing came in time.
    """
    try:
        return await asyncio.wait_for(_next(incoming), within_s)
    except asyncio.TimeoutError:
        raise ClientSilentError(
            f"The {what} of the stream did not come within {within_s:g} s; call again when there "
            "is something to send."
        ) from None


async def _next(incoming: AsyncIterator[Any]) -> Any:
    return await anext(incoming, None)


class Silence:
    """Watches one stream of fields: each message, and each answer, is a sign of life.

    Attributes:
        assembly: The field that is being received; None between two fields.
        under_way: Fields that the service has, and what it keeps the client waiting for: while
            there are any, the client is not silent.
    """

    def __init__(self, idle_s: float = IDLE_STREAM_S) -> None:
        self.assembly: FrameAssembly | None = None
        self.under_way = 0
        self._idle_s = idle_s
        self._heard = time.monotonic()

    def hear(self) -> None:
        """Note that something came."""
        self._heard = time.monotonic()

    async def watch(self) -> None:
        """Wait until the client was silent for too long.

        Raises:
            ClientSilentError: It was.
        """
        while True:
            left = self._left_s()
            if left <= 0:
                raise self._error()
            await asyncio.sleep(min(left, LOOK_EVERY_S))

    def _left_s(self) -> float:
        now = time.monotonic()
        if self.under_way:
            self._heard = now
            return CHUNK_S
        if self.assembly is None:
            return self._heard + self._idle_s - now
        declared = min(self.assembly.header.total_bytes, MAX_FRAME_BYTES)
        slowest = CHUNK_S + declared / SLOWEST_BYTES_PER_S
        return min(self._heard + CHUNK_S, self.assembly.started + slowest) - now

    def _error(self) -> ClientSilentError:
        if self.assembly is None:
            return ClientSilentError(
                f"No field came on this stream for {self._idle_s:g} s; the session can be resumed "
                "when there is one.",
                reason=STREAM_IDLE,
            )
        header = self.assembly.header
        return ClientSilentError(
            f"Field {header.sequence} did not come to its end: {self.assembly.received} of "
            f"{header.total_bytes} bytes were sent, the next within {CHUNK_S:g} s or all of them "
            f"at {SLOWEST_BYTES_PER_S // 1000} kB/s at least. Send it again.",
            received=self.assembly.received,
            total_bytes=header.total_bytes,
        )
