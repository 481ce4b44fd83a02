"""The base of heads that must see the bag at once: the state is the bag, a score a run over it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import CountedAggregator, check_batch
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, SlideScore

EMBEDDINGS = "values"
"""Array of the bank, and output of `attend.onnx`."""


class WholeBagAggregator(CountedAggregator[Bank]):
    """Keeps what `attend.onnx` gives for each instance; runs `forward` in canonical order.

    Attributes:
        value_dim: Width of a kept row.
        classifier: Turns the logits into a score.
        smallest: Bags of fewer instances have no score yet.
    """

    incremental = "whole-bag"
    needs_instance_order = True

    def __init__(self, value_dim: int, classifier: Classifier, smallest: int = 1) -> None:
        self.value_dim, self.classifier, self.smallest = value_dim, classifier, max(1, smallest)

    @abstractmethod
    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Run the head.

        Args:
            embeddings: Rows of the bag in canonical order, float32 (n, value_dim), n at least
                `smallest`.

        Returns:
            Logits, float64 (c,), and each instance's attention, (n, k) with columns that sum to
            1; None where the model has none.
        """

    def initial_state(self) -> Bank:
        return Bank({EMBEDDINGS: self.value_dim})

    def update(self, state: Bank, batch: InstanceBatch) -> Bank:
        check_batch(batch, self.value_dim, ordered=True)
        if batch.instance_order is None or len(batch) == 0:
            return state
        return state.append({EMBEDDINGS: batch.embeddings}, batch.instance_order)

    def merge(self, left: Bank, right: Bank) -> Bank:
        return left.extend(right)

    def score_all(self, states: list[Bank]) -> list[SlideScore]:
        return [self._score(state) for state in states]

    def _score(self, state: Bank) -> SlideScore:
        logits, _ = self._run(state)
        return self.classifier.scores_of_logits(logits[None], [state.count])[0]

    def attention(self, state: Bank, batch: InstanceBatch) -> Float32Array | None:
        if state.count < self.smallest or batch.instance_order is None:
            return None
        _, weights = self._run(state)
        if weights is None:
            return None
        position = np.empty(state.count, dtype=np.int64)
        position[state.order()] = np.arange(state.count)
        return weights[position[state.rows_of(batch.instance_order.keys)]]

    def to_bytes(self, state: Bank) -> bytes:
        return state.to_bytes()

    def from_bytes(self, data: bytes) -> Bank:
        return Bank.from_bytes(data, {EMBEDDINGS: self.value_dim})

    def _run(self, state: Bank) -> tuple[Float64Array, Float32Array | None]:
        return self.forward(np.ascontiguousarray(state[EMBEDDINGS][state.order()]))
