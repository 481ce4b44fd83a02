"""The base of heads that must see the bag at once: the state is the bag, a score a run over it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import CountedAggregator, check_batch
from edge_mil.errors import InvalidInstancesError
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, SlideScore

EMBEDDINGS = "values"
"""Array of the bank, and output of `attend.onnx`."""
POSITIONS = "positions"
"""Array of the bank in heads that need the instances' coordinates."""


class WholeBagAggregator(CountedAggregator[Bank]):
    """Keeps what `attend.onnx` gives for each instance; runs `forward` in canonical order.

    Attributes:
        value_dim: Width of a kept row.
        classifier: Turns the logits into a score.
        smallest: Bags of fewer instances have no score yet.
        needs_positions: Whether the head needs the instances' coordinates, x and y in the unit of
            its training; `forward` then takes them too.
    """

    incremental = "whole-bag"
    needs_instance_order = True
    needs_positions: bool = False

    def __init__(self, value_dim: int, classifier: Classifier, smallest: int = 1) -> None:
        self.value_dim, self.classifier, self.smallest = value_dim, classifier, max(1, smallest)

    @property
    def widths(self) -> dict[str, int]:
        """The arrays of the bank and their widths."""
        return {EMBEDDINGS: self.value_dim} | ({POSITIONS: 2} if self.needs_positions else {})

    @abstractmethod
    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Run the head; one that needs positions takes them, float32 (n, 2), as the second.

        Args:
            embeddings: Rows of the bag in canonical order, float32 (n, value_dim), n at least
                `smallest`.

        Returns:
            Logits, float64 (c,), and each instance's attention, (n, k) with columns that sum to
            1; None where the model has none.
        """

    def initial_state(self) -> Bank:
        return Bank(self.widths)

    def update(self, state: Bank, batch: InstanceBatch) -> Bank:
        check_batch(batch, self.value_dim, ordered=True)
        if batch.instance_order is None or len(batch) == 0:
            return state
        arrays = {EMBEDDINGS: batch.embeddings}
        if self.needs_positions:
            positions = batch.instance_order.positions
            if positions is None:
                raise InvalidInstancesError(
                    "This head needs the coordinates of the instances and they come without; save "
                    "them beside the features as `coords` (n, 2), x and y in the unit of training."
                )
            arrays[POSITIONS] = positions.astype(np.float32)
        return state.append(arrays, batch.instance_order)

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
        return Bank.from_bytes(data, self.widths)

    def _run(self, state: Bank) -> tuple[Float64Array, Float32Array | None]:
        order = state.order()
        return self.forward(*(np.ascontiguousarray(state[name][order]) for name in self.widths))
