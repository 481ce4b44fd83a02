"""What every pooling shares: a pooled vector, a count, and the classifier that ends it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, TypeVar

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.errors import EmptyBagError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float64Array, SlideScore


class Counted(Protocol):
    """A state that knows how many instances it holds."""

    @property
    def count(self) -> int:
        """Number of instances seen."""


PooledState = TypeVar("PooledState", bound=Counted)


class PooledAggregator(Aggregator[PooledState]):
    """A pooling whose state gives one pooled array of fixed shape (k, l)."""

    classifier: Classifier

    @abstractmethod
    def pooled(self, state: PooledState) -> Float64Array:
        """Return what the classifier takes, (k, l) float64, of a bag that is not empty."""

    def instances(self, state: PooledState) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: PooledState) -> SlideScore:
        """Return the slide-level score of the instances seen so far."""
        found = self.scores([state])[0]
        if found is None:
            raise EmptyBagError
        return found

    def scores(self, states: list[PooledState]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one, in one run of the classifier."""
        held = [s for s in states if s.count]
        if not held:
            return [None] * len(states)
        pooled = np.stack([self.pooled(s) for s in held])
        found = iter(self.classifier.scores(pooled, [s.count for s in held]))
        return [next(found) if s.count else None for s in states]
