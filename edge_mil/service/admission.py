"""How many calls run at once: more are refused at once, in words, and never wait unseen."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from edge_mil.errors import ServiceBusyError
from edge_mil.service.limits import (
    MAX_CALIBRATION_STREAMS,
    MAX_CALLS,
    MAX_FIELD_STREAMS,
    MAX_OTHER_STREAMS,
    MAX_WATCHERS,
)

FIELDS, WATCHERS, CALIBRATIONS = "streams of fields", "watchers", "calibrations"
CALLS, OTHERS = "calls", "other streams"

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        FIELDS: MAX_FIELD_STREAMS,
        WATCHERS: MAX_WATCHERS,
        CALIBRATIONS: MAX_CALIBRATION_STREAMS,
        CALLS: MAX_CALLS,
        OTHERS: MAX_OTHER_STREAMS,
    }
)

KIND_OF_METHOD: Mapping[str, str] = MappingProxyType(
    {"StreamFields": FIELDS, "WatchScore": WATCHERS, "Calibrate": CALIBRATIONS}
)
"""Name of a method -> what it is counted as; others by whether they stream."""


class Admission:
    """Counts the calls under way; used from the event loop only."""

    def __init__(self, limits: Mapping[str, int] = LIMITS) -> None:
        self._limits = limits
        self._under_way: Counter[str] = Counter()

    @contextlib.contextmanager
    def admitted(self, method: str, *, streams: bool) -> Iterator[None]:
        """Count a call for as long as the block lasts.

        Args:
            method: Full name, as "/edge_mil.v1.ViewService/GetScore".
            streams: Whether either side sends more than one message.

        Raises:
            ServiceBusyError: As many of its kind are under way as the service takes on.
        """
        kind = KIND_OF_METHOD.get(method.rpartition("/")[2], OTHERS if streams else CALLS)
        if self._under_way[kind] >= self._limits[kind]:
            raise ServiceBusyError(
                f"This service has {self._limits[kind]} {kind} at once, and all are in use; try "
                "again in a second, and end those that are no longer needed.",
                limit=self._limits[kind],
            )
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1
