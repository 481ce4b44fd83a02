"""Heads that must see the bag at once: the state is the bag, the score a run over it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.errors import EmptyBagError, InvalidInstancesError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, SlideScore

VALUES = "values"


class WholeBagAggregator(Aggregator[Bank]):
    """Keeps what `attend.onnx` gives for each instance; runs `forward` in canonical order.

    Attributes:
        value_dim: Width of a kept row.
        classifier: Says what the logits mean.
        smallest: Bags of fewer instances have no score yet.
    """

    incremental = "whole-bag"
    needs_instance_order = True

    def __init__(self, value_dim: int, classifier: Classifier, smallest: int = 1) -> None:
        self.value_dim, self.classifier, self.smallest = value_dim, classifier, smallest

    @abstractmethod
    def forward(self, values: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Run the head.

        Args:
            values: Rows of the bag in canonical order, float32 (n, value_dim), n at least
                `smallest`.

        Returns:
            Logits, float64 (c,), and each instance's attention, (n, k) with columns that sum to
            1; None where the model has none.
        """

    def initial_state(self) -> Bank:
        """Return the empty bag."""
        return Bank({VALUES: self.value_dim})

    def update(self, state: Bank, batch: InstanceBatch) -> Bank:
        """Return the bag after also seeing `batch`."""
        if batch.values.shape[1] != self.value_dim or batch.instance_order is None:
            raise InvalidInstancesError(
                f"Expected values of width {self.value_dim} with their order, got "
                f"{batch.values.shape[1]}; the graphs are of another bundle."
            )
        return state.append({VALUES: batch.values}, batch.instance_order) if len(batch) else state

    def merge(self, left: Bank, right: Bank) -> Bank:
        """Return the bag of both."""
        return left.extend(right)

    def instances(self, state: Bank) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: Bank) -> SlideScore:
        """Run the head over the bag; slow."""
        if state.count < max(1, self.smallest):
            raise EmptyBagError
        logits, _ = self.forward(np.ascontiguousarray(state[VALUES][state.order()]))
        return self.classifier.finish(logits[None], [state.count])[0]

    def scores(self, states: list[Bank]) -> list[SlideScore | None]:
        """Return the score of each state, None for one that has none yet."""
        enough = max(1, self.smallest)
        return [self.score(s) if s.count >= enough else None for s in states]

    def attention(self, state: Bank, batch: InstanceBatch) -> Float32Array | None:
        """Return the attention of the batch's instances in the bag, (n, k)."""
        if state.count < max(1, self.smallest) or batch.instance_order is None:
            return None
        order = state.order()
        _, weights = self.forward(np.ascontiguousarray(state[VALUES][order]))
        if weights is None:
            return None
        keys = state.keys
        at = {keys[row]: number for number, row in enumerate(order.tolist())}
        return weights[[at[key] for key in batch.instance_order.keys]]

    def to_bytes(self, state: Bank) -> bytes:
        """Serialise a state."""
        return state.to_bytes()

    def from_bytes(self, data: bytes) -> Bank:
        """Read what `to_bytes` wrote."""
        return Bank.from_bytes(data, {VALUES: self.value_dim})
