"""Heads whose state gives one pooled array, which a classifier reads."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import CountedAggregator, CountedState
from edge_mil.types import Float64Array, SlideScore


class PooledAggregator(CountedAggregator[CountedState]):
    """An aggregator with a pooled array of fixed shape (k, l)."""

    classifier: Classifier

    @abstractmethod
    def pooled(self, state: CountedState) -> Float64Array:
        """Return what the classifier takes, float64 (k, l), of a bag that is not empty."""

    def score_all(self, states: list[CountedState]) -> list[SlideScore]:
        pooled = np.stack([self.pooled(state) for state in states])
        return self.classifier.scores(pooled, [state.count for state in states])
