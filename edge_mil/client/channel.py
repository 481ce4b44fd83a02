"""The channel to the service: calls with time limits, and statuses as errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from edge_mil.errors import EdgeMilError, ServiceUnavailableError
from edge_mil.rpc.status import REASON_KEY, RETRY_KEY, remote_error
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

Response = TypeVar("Response")
Code = grpc.StatusCode

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Pause before the first and before any later attempt to reach a service that is away."""

MAX_ANSWER_BYTES = 64 << 20
"""A report of ten thousand fields has some 6 MB; gRPC's default is 4."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The device beside the microscope is not behind a proxy for the web.
    ("grpc.enable_http_proxy", 0),
)
"""Why each: `docs/design/serving-and-durability.md`, "Options of gRPC"."""

LINK_LOST = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.UNKNOWN, Code.INTERNAL})
"""Codes that gRPC itself gives when a connection breaks; the service's own carry a reason."""

FULL = frozenset({"SERVICE_BUSY", "TOO_MANY_SESSIONS"})
"""Reasons of a service that does as much as it takes on at once."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a call may take, seconds.

    Attributes:
        connect_s: Until a service that cannot be reached is given up.
        call_s: One call.
        close_s: Closing a session.
        bundle_s: Until a bundle that is loading is given up.
    """

    connect_s: float = 5.0
    call_s: float = 5.0
    close_s: float = 30.0
    bundle_s: float = 300.0


class Channel:
    """One channel and the stubs on it."""

    def __init__(self, address: str, timeouts: Timeouts) -> None:
        self.address, self.timeouts = address, timeouts
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self.models = rpc.ModelServiceStub(self._channel)
        self.sessions = rpc.SessionServiceStub(self._channel)
        self.views = rpc.ViewServiceStub(self._channel)
        self.calibrations = rpc.CalibrationServiceStub(self._channel)

    def call(
        self,
        method: Callable[..., Response],
        request: object,
        *,
        timeout_s: float | None = None,
        connect_s: float | None = None,
    ) -> Response:
        """Make a call that may be repeated, until it is answered or the time is over.

        Args:
            method: Of one of the stubs; called with the request and `timeout` in seconds.
            request: The message.
            timeout_s: Limit of one attempt; None takes `call_s`.
            connect_s: How long to try to reach the service; None takes `connect_s`.

        Raises:
            ServiceUnavailableError: The service cannot be reached, or does not answer in time.
            RemoteError: It answered with an error.
        """
        limit = self.timeouts.call_s if timeout_s is None else timeout_s
        patience = self.timeouts.connect_s if connect_s is None else connect_s
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                return method(request, timeout=limit)
            except grpc.RpcError as error:
                waited = time.monotonic() - began
                loading = reason_of(error) == "BUNDLE_NOT_READY"
                away = (link_lost(error) or reason_of(error) in FULL) and waited < patience
                if not away and not (loading and waited < self.timeouts.bundle_s):
                    raise error_of(error, self.address) from error
                time.sleep(max(pause, retry_after_s(error) or 0.0))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def pages(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """Yield every page of a list.

        Args:
            method: Of one of the stubs, whose response has `next_page_token`.
            request: The message, whose `page_token` is set for each page.

        Raises:
            ServiceUnavailableError: The service cannot be reached, or does not answer in time.
            RemoteError: It answered with an error.
        """
        while True:
            page = self.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def link_lost(error: grpc.RpcError) -> bool:
    """Return whether the connection broke, as against an error of the service."""
    return error.code() in LINK_LOST and not reason_of(error)


def reason_of(error: grpc.RpcError) -> str:
    """Return the service's own reason, "" where gRPC itself failed."""
    return _trailing(error, REASON_KEY)


def retry_after_s(error: grpc.RpcError) -> float | None:
    """Return when the service wants to be asked again; None when it does not say."""
    milliseconds = _trailing(error, RETRY_KEY)
    return int(milliseconds) / 1000 if milliseconds.isdigit() else None


def error_of(error: grpc.RpcError, address: str) -> EdgeMilError:
    """Return a status as an error of ours, with one sentence."""
    code, text, reason = error.code(), error.details() or "", reason_of(error)
    if not reason and code is Code.DEADLINE_EXCEEDED:
        return ServiceUnavailableError(
            f"The service at {address} did not answer in time; see whether it is busy or stuck."
        )
    if link_lost(error):
        return ServiceUnavailableError(
            f"The service at {address} cannot be reached; start it with edge-mil serve, or name "
            f"another address ({text[:200]})."
        )
    return remote_error(
        text or f"The service answered {code.name}.",
        code.name,
        reason,
        address=address,
    )


def _trailing(error: grpc.RpcError, key: str) -> str:
    pairs: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for name, value in pairs or ():
        if name == key:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return ""
