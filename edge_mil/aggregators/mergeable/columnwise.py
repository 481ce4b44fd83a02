"""Sum, mean and max pooling: each column of the embeddings by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import check_batch
from edge_mil.aggregators.pooled import PooledAggregator
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.types import Float32Array, Float64Array, InstanceBatch


@dataclass(frozen=True, slots=True, eq=False)
class ColumnState:
    """The sum or maximum of each column.

    Attributes:
        columns: Of the embeddings so far, (l,) float64.
        count: Number of instances seen.
    """

    columns: Float64Array
    count: int


@dataclass(frozen=True, eq=False)
class _ColumnAggregator(PooledAggregator[ColumnState]):
    """Folds columns with one commutative ufunc.

    Attributes:
        value_dim: Width l of what is pooled.
        classifier: From pooled (1, l) to the score.
    """

    value_dim: int
    classifier: Classifier
    _fold: ClassVar[np.ufunc]
    _identity: ClassVar[float]

    def initial_state(self) -> ColumnState:
        return ColumnState(np.full(self.value_dim, self._identity), 0)

    def update(self, state: ColumnState, batch: InstanceBatch) -> ColumnState:
        check_batch(batch, self.value_dim)
        embeddings = batch.embeddings.astype(np.float64)
        columns = self._fold.reduce(embeddings, axis=0, initial=self._identity)
        return self.merge(state, ColumnState(columns, len(batch)))

    def merge(self, left: ColumnState, right: ColumnState) -> ColumnState:
        return ColumnState(self._fold(left.columns, right.columns), left.count + right.count)

    def pooled(self, state: ColumnState) -> Float64Array:
        return state.columns[None]

    def attention(self, state: ColumnState, batch: InstanceBatch) -> Float32Array | None:
        return None

    def to_bytes(self, state: ColumnState) -> bytes:
        return to_bytes(np.concatenate([[state.count], state.columns]))

    def from_bytes(self, data: bytes) -> ColumnState:
        numbers = from_bytes(data, 1 + self.value_dim)
        return ColumnState(numbers[1:], int(numbers[0]))


class SumAggregator(_ColumnAggregator):
    """The sum over the instances, which grows with the bag.

    Source:
        Zaheer et al. 2017, arXiv:1703.06114, eq. 4 (deep sets).
    """

    _fold = np.add
    _identity = 0.0


class MeanAggregator(_ColumnAggregator):
    """The mean over the instances, of class logits or of embeddings.

    Source:
        isyangshu/MambaMIL, models/Mean_Max_MIL.py.
    """

    _fold = np.add
    _identity = 0.0

    def pooled(self, state: ColumnState) -> Float64Array:
        return state.columns[None] / state.count


class MaxAggregator(_ColumnAggregator):
    """The largest number of each column over the instances: of each class, where they are logits.

    Source:
        isyangshu/MambaMIL, models/Mean_Max_MIL.py.
    """

    _fold = np.maximum
    _identity = -np.inf
