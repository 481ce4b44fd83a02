"""Score a bag by its top instance: CLAM's max-pooling baselines.

Source:
    Lu et al. 2021, arXiv:2004.09666; mahmoodlab/CLAM, models/model_mil.py, `MIL_fc` and
    `MIL_fc_mc`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import check_batch
from edge_mil.aggregators.pooled import PooledAggregator
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.types import Float32Array, Float64Array, InstanceBatch


@dataclass(frozen=True, slots=True, eq=False)
class TopState:
    """The top instance so far.

    Attributes:
        odds: Its log-odds, by which it is the top; -inf for the empty bag.
        key: Its canonical key: of equal instances the first one is the top.
        logits: Its logits, float64 (c,).
        count: Number of instances seen.
    """

    odds: float
    key: bytes
    logits: Float64Array
    count: int


@dataclass(frozen=True, eq=False)
class TopInstanceAggregator(PooledAggregator[TopState]):
    """The logits of the instance with the largest probability.

    Attributes:
        value_dim: Classes c.
        classifier: Turns the logits into a score.
        any_class: True: the largest probability of any class. False: of the second class.
    """

    value_dim: int
    classifier: Classifier
    any_class: bool
    needs_instance_order = True

    def initial_state(self) -> TopState:
        return TopState(-np.inf, b"", np.zeros(self.value_dim), 0)

    def update(self, state: TopState, batch: InstanceBatch) -> TopState:
        check_batch(batch, self.value_dim, ordered=True)
        if batch.instance_order is None or len(batch) == 0:
            return state
        logits = batch.embeddings.astype(np.float64)
        odds = self._log_odds(logits)
        keys = batch.instance_order.keys
        row = min(np.flatnonzero(odds == odds.max()).tolist(), key=keys.__getitem__)
        return self.merge(state, TopState(float(odds[row]), keys[row], logits[row], len(batch)))

    def merge(self, left: TopState, right: TopState) -> TopState:
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        is_left = left.odds > right.odds or (left.odds == right.odds and left.key <= right.key)
        top = left if is_left else right
        return TopState(top.odds, top.key, top.logits, left.count + right.count)

    def pooled(self, state: TopState) -> Float64Array:
        return state.logits[None]

    def attention(self, state: TopState, batch: InstanceBatch) -> Float32Array | None:
        return None

    def to_bytes(self, state: TopState) -> bytes:
        """Serialise the numbers, then the key."""
        return to_bytes(np.concatenate([[state.count, state.odds], state.logits])) + state.key

    def from_bytes(self, data: bytes) -> TopState:
        length = len(to_bytes(np.zeros(2 + self.value_dim)))
        numbers = from_bytes(data[:length], 2 + self.value_dim)
        return TopState(float(numbers[1]), data[length:], numbers[2:], int(numbers[0]))

    def _log_odds(self, logits: Float64Array) -> Float64Array:
        """Return log p - log(1 - p): it orders instances as p does, and never saturates."""
        if not self.any_class:
            return np.asarray(logits[:, 1] - logits[:, 0], dtype=np.float64)
        ranked = np.sort(logits, axis=1)
        others = np.exp(ranked[:, :-1] - ranked[:, -1:]).sum(axis=1)
        return np.asarray(-np.log(others), dtype=np.float64)
