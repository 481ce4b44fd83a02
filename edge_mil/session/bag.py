"""The bag of one session: its folded state, and how it is folded again from those of its fields."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edge_mil.errors import EmptyBagError
from edge_mil.protocols import Aggregator
from edge_mil.types import SlideScore


class Bag:
    """Folds the fields' states in the order of their sequence numbers.

    That order makes a restart equal to the bit: live and from the store, the same merges happen
    in the same sequence. Nothing is ever subtracted: when a dominant field is subtracted again, no
    correct digit is left (`docs/design/aggregators.md`, "Why a field is never subtracted").

    Attributes:
        total: State of the whole bag.
        fields: How many fields it was folded from.
        states: Sequence -> state of each field, in order; empty for heads whose states are parts
            of the bag itself, which is in memory once.
    """

    def __init__(
        self, aggregator: Aggregator[Any], stored: Callable[[], Iterable[tuple[int, bytes]]]
    ) -> None:
        """Start with an empty bag.

        Args:
            aggregator: The model's pooling.
            stored: Returns (sequence, state) of the fields in the bag, in order.
        """
        self._aggregator, self._stored = aggregator, stored
        self.total: Any = aggregator.initial_state()
        self.fields = 0
        self.states: dict[int, Any] = {}
        self._keeps_states = aggregator.incremental == "mergeable"
        self._last = 0
        self._score: SlideScore | None = None
        self._scored = False

    def with_changes(self, changes: Mapping[int, Any | None]) -> Bag:
        """Return the bag after fields were added or changed (a state) or removed (None)."""
        after = Bag(self._aggregator, self._stored)
        sequences = sorted(changes)
        if all(s > self._last and changes[s] is not None for s in sequences):
            after.total, after.fields, after._last = self.total, self.fields, self._last
            after.states = dict(self.states)  # values of another thread's analysis
            for sequence in sequences:
                after._fold(sequence, changes[sequence])
        else:
            after._fold_all(changes, self)
        return after

    def load(self) -> None:
        """Fold the stored states."""
        self._fold_all({}, None)

    def score(self) -> SlideScore | None:
        """Return the score, None while there is none."""
        if not self._scored:
            with contextlib.suppress(EmptyBagError):
                self._score = self._aggregator.score(self.total)
            self._scored = True
        return self._score

    @property
    def instances(self) -> int:
        """How many instances the bag holds."""
        return self._aggregator.instances(self.total)

    def _fold_all(self, changes: Mapping[int, Any | None], before: Bag | None) -> None:
        self.total, self.fields, self._last = self._aggregator.initial_state(), 0, 0
        waiting = sorted(s for s in changes if changes[s] is not None)
        for sequence, state in self._known(before):
            while waiting and waiting[0] <= sequence:
                self._fold(waiting[0], changes[waiting.pop(0)])
            if sequence not in changes:
                self._fold(sequence, state)
        for sequence in waiting:
            self._fold(sequence, changes[sequence])

    def _known(self, before: Bag | None) -> Iterable[tuple[int, Any]]:
        """Return (sequence, state) of the fields so far: from memory, else from the store."""
        if before is not None and self._keeps_states:
            return before.states.items()
        return ((s, self._aggregator.from_bytes(data)) for s, data in self._stored())

    def _fold(self, sequence: int, state: Any) -> None:
        self.total = self._aggregator.merge(self.total, state)
        if self._keeps_states:
            self.states[sequence] = state
        self.fields += 1
        self._last = sequence
