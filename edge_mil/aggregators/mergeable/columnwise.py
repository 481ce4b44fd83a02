"""Mean and max pooling: each column of the values by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.mergeable.pooled import PooledAggregator
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.errors import InvalidInstancesError
from edge_mil.types import Float32Array, Float64Array, InstanceBatch


@dataclass(frozen=True, slots=True, eq=False)
class ColumnState:
    """What a column-wise pooling must remember.

    Attributes:
        columns: Sum or maximum of the values so far, (l,) float64.
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
        """Return the state of the empty bag."""
        return ColumnState(np.full(self.value_dim, self._identity), 0)

    def update(self, state: ColumnState, batch: InstanceBatch) -> ColumnState:
        """Return the state after also seeing `batch`."""
        if batch.values.shape[1] != self.value_dim:
            raise InvalidInstancesError(
                f"Expected values of width {self.value_dim}, got {batch.values.shape[1]}; "
                "the graphs are of another bundle."
            )
        widened = batch.values.astype(np.float64)
        columns = self._fold.reduce(widened, axis=0, initial=self._identity)
        return self.merge(state, ColumnState(columns, len(batch)))

    def merge(self, left: ColumnState, right: ColumnState) -> ColumnState:
        """Return the state of the two bags taken together."""
        return ColumnState(self._fold(left.columns, right.columns), left.count + right.count)

    def pooled(self, state: ColumnState) -> Float64Array:
        """Return what the classifier takes, (1, l) float64."""
        return state.columns[None]

    def attention(self, state: ColumnState, batch: InstanceBatch) -> Float32Array | None:
        """Return None: this pooling has no attention."""
        return None

    def to_bytes(self, state: ColumnState) -> bytes:
        """Serialise a state."""
        return to_bytes(np.concatenate([[state.count], state.columns]))

    def from_bytes(self, data: bytes) -> ColumnState:
        """Read what `to_bytes` wrote."""
        numbers = from_bytes(data, 1 + self.value_dim)
        return ColumnState(numbers[1:], int(numbers[0]))


class MeanAggregator(_ColumnAggregator):
    """The mean over the instances, of class logits or of embeddings.

    Source:
        `models/Mean_Max_MIL.py` of isyangshu/MambaMIL; `aggregators.md`, 4.3.
    """

    _fold = np.add
    _identity = 0.0

    def pooled(self, state: ColumnState) -> Float64Array:
        """Return the mean, (1, l) float64."""
        return state.columns[None] / state.count


class MaxAggregator(_ColumnAggregator):
    """The largest value of each column over the instances: per class, where values are logits.

    Source:
        `models/Mean_Max_MIL.py` of isyangshu/MambaMIL; `aggregators.md`, 4.3.
    """

    _fold = np.maximum
    _identity = -np.inf
