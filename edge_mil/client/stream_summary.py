"""Counts of one stream: answers, errors, dropped frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_mil.client.decoding import verdict_name
from edge_mil.types import FieldResult


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What one stream did.

    Attributes:
        answered: Fields that got a verdict.
        verdicts: How many got each.
        replayed: Of them, those that the service had already.
        errors: Sentence of each field that could not be processed.
        dropped: Frames that a live camera lost because the service was behind.
        reconnects: How often the service was away.
        last: The last answer; None before the first.
    """

    answered: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    replayed: int = 0
    errors: tuple[str, ...] = ()
    dropped: int = 0
    reconnects: int = 0
    last: FieldResult | None = None


class StreamCounts:
    """The counts of a stream while it runs. Not thread-safe; its owner has the lock.

    Attributes:
        errors: Sentence of each field that could not be processed.
        reconnects: How often the service was away.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.reconnects = 0
        self._verdicts: Counter[str] = Counter()
        self._replayed = 0
        self._last: FieldResult | None = None

    def add(self, result: FieldResult, *, replayed: bool) -> None:
        """Count an answer."""
        self._verdicts[verdict_name(int(result.verdict))] += 1
        self._replayed += replayed
        self._last = result

    def summary(self, dropped: int) -> StreamSummary:
        """Return the counts so far."""
        return StreamSummary(
            answered=sum(self._verdicts.values()),
            verdicts=dict(self._verdicts),
            replayed=self._replayed,
            errors=tuple(self.errors),
            dropped=dropped,
            reconnects=self.reconnects,
            last=self._last,
        )
