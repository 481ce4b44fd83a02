"""Bytes that are no message: INVALID_ARGUMENT, and a line in the log at most once a minute.

gRPC itself answers them with INTERNAL or UNKNOWN and writes a traceback for each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from edge_mil.errors import ProtocolError

LOG = logging.getLogger("edge_mil.service")

LOG_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a message whose bytes could not be read.

    Attributes:
        size_bytes: How many came.
    """

    size_bytes: int


def lenient(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a deserialiser that gives `Unreadable` where the one of the message raises."""
    if read is None:
        return None

    def deserialise(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return Unreadable(len(data))

    return deserialise


class UnreadableLog:
    """Counts what could not be read, and logs it once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._count, self._next = clock, 0, -LOG_EVERY_S

    def note(self, method: str) -> None:
        """Count one message of a method."""
        self._count += 1
        now = self._clock()
        if now >= self._next:
            LOG.warning(
                "%d message(s) could not be read, the last one of %s; a client sends something "
                "else than edge_mil.v1, or is damaged",
                self._count,
                method,
            )
            self._count, self._next = 0, now + LOG_EVERY_S


class ReadableMessages:
    """The messages of a stream; ends with an error at the first that cannot be read."""

    def __init__(self, requests: AsyncIterator[Any], check: Callable[[Any], None]) -> None:
        """Wrap the messages of a client.

        Args:
            requests: As gRPC gives them.
            check: Raises where a message is `Unreadable`.
        """
        self._requests, self._check = requests.__aiter__(), check

    def __aiter__(self) -> ReadableMessages:
        return self

    async def __anext__(self) -> Any:
        request = await self._requests.__anext__()
        self._check(request)
        return request


def unreadable_error(method: str, request: Unreadable) -> ProtocolError:
    """Return the error of a call whose message could not be read."""
    return ProtocolError(
        f"The {request.size_bytes} bytes that were sent to {method} are no message of it; send "
        "what proto/edge_mil/v1/edge_mil.proto declares, with a client generated from it.",
        reason="MESSAGE_UNREADABLE",
    )
