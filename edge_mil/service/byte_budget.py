"""A budget for all fields that are under way, which lends to them in the order of asking."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

from edge_mil.rpc.frames import RAW_CHANNELS
from edge_mil.v1 import edge_mil_pb2 as pb

RGB = 3
"""Bytes of a decoded pixel; raw RGB8 stays where it was received."""


class Loan:
    """What one field has borrowed, until it is answered or forgotten."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def give_back(self, _: object = None) -> None:
        """Return it; again is harmless."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class ByteBudget:
    """Lends bytes to fields; one that finds too few waits for its turn. On the event loop only.

    A stream that waits reads no further, and gRPC then holds its client back.
    """

    def __init__(self, total: int) -> None:
        """Begin with `total` bytes to lend, more than any single field needs."""
        self.total = self.free = total
        self._waiting: collections.deque[tuple[int, asyncio.Future[None]]] = collections.deque()

    async def lend(self, header: pb.FieldHeader, room: asyncio.Semaphore) -> Loan:
        """Wait until a field may be received: its session and the service have room for it.

        Args:
            header: What the client declared of the field.
            room: Counts the fields of its session.
        """
        count = bytes_of(header)
        await room.acquire()
        try:
            await self.borrow(count)
        except BaseException:
            room.release()
            raise

        def give_back() -> None:
            room.release()
            self.give_back(count)

        return Loan(give_back)

    async def borrow(self, count: int) -> None:
        """Wait until `count` bytes are free, and take them.

        The order is that of asking: a large field is not passed by small ones for ever.
        """
        count = min(count, self.total)
        if not self._waiting and count <= self.free:
            self.free -= count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(count)
            raise

    def give_back(self, count: int) -> None:
        """Return bytes that were borrowed."""
        self.free += min(count, self.total)
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if wanted > self.free:
                return
            self._waiting.popleft()
            self.free -= wanted
            turn.set_result(None)


def bytes_of(header: pb.FieldHeader) -> int:
    """Return what a field needs until it is answered: its bytes as they come, and its pixels."""
    pixels = header.width * header.height * RGB
    raw = header.encoding == pb.ENCODING_RAW and RAW_CHANNELS.get(header.pixel_format) == RGB
    return header.total_bytes + (0 if raw else pixels)
