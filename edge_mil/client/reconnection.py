"""When a broken stream is tried again, and when it is given up."""

from __future__ import annotations

from edge_mil.client.channel import FIRST_PAUSE_S, LONGEST_PAUSE_S
from edge_mil.errors import EdgeMilError, RemoteError

GIVE_UP_AFTER_S = 600.0
"""How long a service may be away: time to start a device again."""

STREAM_IDLE = "STREAM_IDLE"
"""Reason of a stream that the service ended because nothing was sent on it for long, which is no
break of the link."""

BUSY_PATIENCE_S = 20.0
"""How long another client may hold the session: one that lost its link is noticed by keepalive
within 15 s."""


class Reconnection:
    """Pauses between attempts, from a tenth of a second to two."""

    def __init__(self, give_up_after_s: float) -> None:
        self._give_up_after_s = give_up_after_s
        self._pause_s = FIRST_PAUSE_S
        self._away_since: float | None = None
        self._busy_since: float | None = None

    def connected(self) -> None:
        """Start anew: the last attempt reached the service."""
        self._pause_s, self._away_since, self._busy_since = FIRST_PAUSE_S, None, None

    def pause_s(self, error: EdgeMilError, asked_s: float, now: float) -> float:
        """Return how long to wait after a failed attempt.

        Args:
            error: Why it failed.
            asked_s: How long the service asks to wait; 0 where it does not say.
            now: Seconds of a monotonic clock.

        Raises:
            EdgeMilError: The error itself, where the service was away or busy for too long.
        """
        self._away_since = now if self._away_since is None else self._away_since
        if isinstance(error, RemoteError) and error.reason == "SESSION_BUSY":
            self._busy_since = now if self._busy_since is None else self._busy_since
            if now - self._busy_since > BUSY_PATIENCE_S:
                raise error
        if now - self._away_since > self._give_up_after_s:
            raise error
        pause = max(self._pause_s, asked_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause
