"""Where a session stands: written by its worker and by the background scorer, read by anyone."""

from __future__ import annotations

import dataclasses
import threading

from edge_mil.session.scorer import Scored
from edge_mil.session.view.records import SessionStatus


class StatusBoard:
    """The newest standing and the newest score; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scored = Scored()
        self._standing = SessionStatus()

    def put(self, standing: SessionStatus, scored: Scored) -> None:
        """Take where the session stands after a change, and the score that there is now."""
        with self._lock:
            # The scorer may have told of a newer one since it was asked.
            if (scored.as_of or 0) >= (self._scored.as_of or 0):
                self._scored = scored
            now = self._scored
            self._standing = dataclasses.replace(standing, score=now.score, as_of=now.as_of)

    def tell(self, scored: Scored) -> None:
        """Take a background score."""
        with self._lock:
            self._scored = scored
            self._standing = dataclasses.replace(
                self._standing, score=scored.score, as_of=scored.as_of
            )

    def get(self) -> SessionStatus:
        """Return the newest."""
        return self._standing
