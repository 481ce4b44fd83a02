"""Hopfield pooling whose queries are drawn to the bag: banked, since each step needs every key."""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, softmax_rows
from edge_mil.errors import EmptyBagError, InvalidInstancesError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

VALUES, KEYS, REST = "values", "keys", "keys_rest"
SETTLED = 1e-4
"""Steps of a head end when its weights, of all queries and instances, move by no more."""


class HopfieldAggregator(Aggregator[Bank]):
    """Keeps the keys and values of all instances; each score runs the update steps over them.

    In float64 throughout, since update steps can amplify a rounding ten thousand times: a key comes
    as two float32 numbers, the rounded one and what is left. And in canonical order, so that the
    score is a function of the set.

    Attributes:
        value_dim: Width l of keys and values, of all heads.
        classifier: Takes pooled (b, queries, l).
        steps: Update steps at most.

    Source:
        Ramsauer et al. 2021, arXiv:2008.02217, eq. 3; ml-jku/hopfield-layers,
        hflayers/functional.py; `aggregators.md`, 4.8.
    """

    incremental = "banked"
    needs_places = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, steps: int
    ) -> None:
        """Take the sizes and the queries.

        Args:
            value_dim: Width of keys and values.
            classifier: From pooled vectors to the output.
            arrays: `queries` (heads, q, hidden), scaled; `beta`, what moved queries are scaled by.
            steps: Update steps at most.
        """
        self.value_dim, self.classifier, self.steps = value_dim, classifier, steps
        self._queries = arrays["queries"].astype(np.float64)
        self._widths = dict.fromkeys((VALUES, KEYS, REST), value_dim)
        self._beta = float(arrays["beta"])

    def initial_state(self) -> Bank:
        """Return the empty bag."""
        return Bank(self._widths)

    def update(self, state: Bank, batch: InstanceBatch) -> Bank:
        """Return the bag after also seeing `batch`."""
        if len(batch) == 0:
            return state
        given = {VALUES: batch.values, **batch.extra}
        if batch.places is None or any(
            name not in given or given[name].shape[1] != width
            for name, width in self._widths.items()
        ):
            raise InvalidInstancesError(
                f"Expected values and keys of width {self.value_dim} with their places, got "
                f"{batch.values.shape[1]}; the graphs are of another bundle."
            )
        return state.append({name: given[name] for name in self._widths}, batch.places)

    def merge(self, left: Bank, right: Bank) -> Bank:
        """Return the bag of both."""
        return left.extend(right)

    def instances(self, state: Bank) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: Bank) -> SlideScore:
        """Run the update steps over the bag."""
        found = self.scores([state])[0]
        if found is None:
            raise EmptyBagError
        return found

    def scores(self, states: list[Bank]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one."""
        held = [state for state in states if state.count]
        if not held:
            return [None] * len(states)
        pooled = np.stack([self._pooled(state) for state in held])
        found = iter(self.classifier.scores(pooled, [state.count for state in held]))
        return [next(found) if state.count else None for state in states]

    def attention(self, state: Bank, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the bag, (n, heads * queries) float32."""
        if state.count == 0 or batch.places is None:
            return None
        order = state.order()
        weights = self._weights(self._keys(state, order))
        flat = weights.reshape(-1, state.count).T
        keys = state.keys
        at = {keys[row]: number for number, row in enumerate(order.tolist())}
        rows = [at[key] for key in batch.places.keys]
        return np.asarray(flat[rows], dtype=np.float32)

    def to_bytes(self, state: Bank) -> bytes:
        """Serialise a state."""
        return state.to_bytes()

    def from_bytes(self, data: bytes) -> Bank:
        """Read what `to_bytes` wrote."""
        return Bank.from_bytes(data, self._widths)

    def _keys(self, state: Bank, order: Int64Array) -> Float64Array:
        return self._split(state[KEYS][order]) + self._split(state[REST][order])

    def _split(self, rows: Float32Array) -> Float64Array:
        """Return rows (n, l) as heads (h, n, hidden), float64."""
        heads = len(self._queries)
        split = rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)
        return np.asarray(split, dtype=np.float64)

    def _weights(self, keys: Float64Array) -> Float64Array:
        """Return the association (h, q, n) of keys (h, n, hidden) after the last step."""
        turned = keys.transpose(0, 2, 1)
        weights = softmax_rows(self._queries @ turned)
        going = np.arange(len(weights))
        for _ in range(self.steps):
            queries = self._beta * (weights[going] @ keys[going])
            moved = softmax_rows(queries @ turned[going])
            change = np.linalg.norm((moved - weights[going]).reshape(len(going), -1), axis=1)
            weights[going] = moved
            going = going[change > SETTLED]
            if not len(going):
                break
        return weights

    def _pooled(self, state: Bank) -> Float64Array:
        order = state.order()
        weights = self._weights(self._keys(state, order))
        slices = weights @ self._split(state[VALUES][order])
        joined = slices.transpose(1, 0, 2)
        return np.ascontiguousarray(joined).reshape(len(joined), -1)
