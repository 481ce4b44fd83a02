"""The mean of the instances' probabilities, kept as logarithms."""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import check_batch
from edge_mil.aggregators.mergeable.attention import AttentionAggregator, AttentionState
from edge_mil.types import Float32Array, Float64Array, InstanceBatch


class MeanProbabilityAggregator(AttentionAggregator):
    """The logarithm of each column's mean of exp: embeddings are logarithms of probabilities.

    Sums of exp(log p - peak) keep probabilities that float64 would round to 0.

    Source:
        Milakov and Gimelshein 2018, arXiv:1805.02867, section 3.1, for the running peak.
    """

    def __init__(self, columns: int, classifier: Classifier) -> None:
        """Take the number of columns, and the classifier of pooled (b, 1, columns)."""
        super().__init__(columns, 0, classifier)

    def update(self, state: AttentionState, batch: InstanceBatch) -> AttentionState:
        check_batch(batch, self.channels)
        if len(batch) == 0:
            return state
        logarithms = batch.embeddings.astype(np.float64)
        peak = logarithms.max(axis=0)
        mass = np.exp(logarithms - peak).sum(axis=0)
        return self.merge(state, AttentionState(peak, mass, state.weighted_sum * 0, len(batch)))

    def pooled(self, state: AttentionState) -> Float64Array:
        """Return the logarithm of each column's mean probability, float64 (1, columns)."""
        return np.asarray(state.peak + np.log(state.mass) - np.log(state.count))[None]

    def attention(self, state: AttentionState, batch: InstanceBatch) -> Float32Array | None:
        return None
