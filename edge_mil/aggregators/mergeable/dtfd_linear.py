"""DTFD as MIL-Lab has it: attention logits are the weights themselves, without a softmax.

Each pseudo-bag is then a plain weighted sum, and the rank of an instance, its log-odds of the last
class under softmax(l_i W h_i), depends on nothing else of the bag: both forms are mergeable with
any number of classes.

Source:
    mahmoodlab/MIL-Lab, src/models/dftd.py; Zhang et al. 2022, arXiv:2203.12081.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import CountedAggregator, check_batch
from edge_mil.aggregators.dense import Arrays
from edge_mil.aggregators.mergeable.columnwise import ColumnState
from edge_mil.aggregators.mergeable.dtfd import PseudoBags, SecondTier, group_numbers
from edge_mil.aggregators.mergeable.dtfd_top import DtfdTopAggregator, SelectionState
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, SlideScore


class DtfdSumAggregator(CountedAggregator[ColumnState]):
    """AFS: the weighted sum of each pseudo-bag of each division; an empty one is zeros."""

    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, pseudo_bags: PseudoBags
    ) -> None:
        """Take the weights of the second tier, as `SecondTier` does."""
        self.value_dim, self.pseudo_bags = value_dim, pseudo_bags
        self._second = SecondTier(arrays, classifier, normalised=False)
        self._slots = pseudo_bags.rounds * pseudo_bags.groups

    def initial_state(self) -> ColumnState:
        return ColumnState(np.zeros(self._slots * self.value_dim), 0)

    def update(self, state: ColumnState, batch: InstanceBatch) -> ColumnState:
        check_batch(batch, self.value_dim, channels=1, ordered=True)
        if len(batch) == 0:
            return state
        weighted = batch.attention_logits.astype(np.float64) * batch.embeddings
        sums = np.zeros((self._slots, self.value_dim))
        for division, groups in enumerate(group_numbers(batch, self.pseudo_bags).T):
            np.add.at(sums, division * self.pseudo_bags.groups + groups, weighted)
        return self.merge(state, ColumnState(sums.ravel(), len(batch)))

    def merge(self, left: ColumnState, right: ColumnState) -> ColumnState:
        return ColumnState(left.columns + right.columns, left.count + right.count)

    def score_all(self, states: list[ColumnState]) -> list[SlideScore]:
        shape = self.pseudo_bags.rounds, self.pseudo_bags.groups, self.value_dim
        return [self._second.score([*s.columns.reshape(shape)], s.count) for s in states]

    def attention(self, state: ColumnState, batch: InstanceBatch) -> Float32Array | None:
        """Return None: weights of any sign are no shares."""
        return None

    def to_bytes(self, state: ColumnState) -> bytes:
        return to_bytes(np.concatenate([[state.count], state.columns]))

    def from_bytes(self, data: bytes) -> ColumnState:
        numbers = from_bytes(data, 1 + self._slots * self.value_dim)
        return ColumnState(numbers[1:], int(numbers[0]))


class DtfdLinearTopAggregator(DtfdTopAggregator):
    """MaxS and MaxMinS: keeps k instances of each side of each pseudo-bag."""

    def ranks(self, logits: Float64Array, scores: Float64Array) -> Float64Array:
        scaled = logits[:, None] * scores
        others = scaled[:, :-1]
        if others.shape[1] == 0:
            return np.zeros((len(scaled), 2))
        # Log-odds of the last class: s_last - log of the sum of exp of the others.
        largest = others.max(axis=1)
        rest = np.log(np.exp(others - largest[:, None]).sum(axis=1))
        odds = scaled[:, -1] - largest - rest
        return np.stack([odds, np.zeros(len(odds))], axis=1)

    def attention(self, state: SelectionState, batch: InstanceBatch) -> Float32Array | None:
        """Return None: weights of any sign are no shares."""
        return None
