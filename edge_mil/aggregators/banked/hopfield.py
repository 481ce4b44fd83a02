"""Hopfield pooling whose queries are drawn to the bag: banked, since each step needs every key."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, Real, softmax_rows
from edge_mil.errors import EmptyBagError, InvalidInstancesError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

VALUES, KEYS, REST = "values", "keys", "keys_rest"
Heads = slice | Int64Array
ALL = slice(None)
Attended = tuple[Float64Array, Float64Array, Float64Array, Float64Array]
"""Of some rows n: logits (h, q, n), their maximum and the sum of their exponentials below it
(h, q, 1), and the keys so weighed (h, q, hidden)."""
SETTLED = 1e-4
"""Steps of a head end when its weights, of all queries and instances, move by no more."""


class HopfieldAggregator(Aggregator[Bank]):
    """Keeps the keys and values of all instances; each score runs the update steps over them.

    Keys and weights are float64, since update steps can amplify a rounding ten thousand times: a
    key comes as two float32 numbers, the rounded one and what is left, and is held as one. The
    order of arrival only shows in the last digits of float64.

    Attributes:
        value_dim: Width l of keys and values, of all heads.
        classifier: Takes pooled (b, queries, l).
        steps: Update steps at most.

    Source:
        Ramsauer et al. 2021, arXiv:2008.02217, eq. 3; ml-jku/hopfield-layers,
        hflayers/functional.py; `aggregators.md`, 4.8.
    """

    incremental = "banked"
    needs_instance_order = True

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
        self._rests = {KEYS: REST}
        self._beta = float(arrays["beta"])

    def initial_state(self) -> Bank:
        """Return the empty bag."""
        return Bank(self._widths, self._rests)

    def update(self, state: Bank, batch: InstanceBatch) -> Bank:
        """Return the bag after also seeing `batch`."""
        if len(batch) == 0:
            return state
        given = {VALUES: batch.values, **batch.extra}
        if batch.instance_order is None or any(
            name not in given or given[name].shape[1] != width
            for name, width in self._widths.items()
        ):
            raise InvalidInstancesError(
                f"Expected values and keys of width {self.value_dim} with their order, got "
                f"{batch.values.shape[1]}; the graphs are of another bundle."
            )
        return state.append({name: given[name] for name in self._widths}, batch.instance_order)

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
        if state.count == 0 or batch.instance_order is None:
            return None
        flat = self._weights(state).reshape(-1, state.count).T
        at = {key: number for number, key in enumerate(state.keys)}
        rows = [at[key] for key in batch.instance_order.keys]
        return np.asarray(flat[rows], dtype=np.float32)

    def to_bytes(self, state: Bank) -> bytes:
        """Serialise a state."""
        return state.to_bytes()

    def from_bytes(self, data: bytes) -> Bank:
        """Read what `to_bytes` wrote."""
        return Bank.from_bytes(data, self._widths, self._rests)

    def _split(self, rows: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """Return a view of rows (n, l) as heads (h, n, hidden)."""
        heads = rows.reshape(len(rows), len(self._queries), -1)
        split: npt.NDArray[Real] = heads.transpose(1, 0, 2)
        return split

    def _weights(self, state: Bank) -> Float64Array:
        """Return the association (h, q, n) after the last step, in the order of arrival."""
        keys = self._split(state.exact(KEYS))
        # What the queries attend before they move is known of all but the newest instances.
        parts = state.blocks(partial(_attended, self._queries, keys), keep=True)
        weights, means = _joined(parts)
        going = np.arange(len(weights))
        for step in range(1, self.steps + 1):
            queries = self._beta * means
            heads: Heads = ALL if len(going) == len(weights) else going
            if step == self.steps:
                parts = state.blocks(partial(_logits, queries, keys, heads=heads), keep=False)
                weights[going] = softmax_rows(np.concatenate(parts, axis=2))
                break
            parts = state.blocks(partial(_attended, queries, keys, heads=heads), keep=False)
            moved, means = _joined(parts)
            change = (moved - weights[going]).reshape(len(going), -1)
            weights[going] = moved
            on = np.einsum("hn,hn->h", change, change) > SETTLED**2
            going, means = going[on], means[on]
            if not len(going):
                break
        return weights

    def _pooled(self, state: Bank) -> Float64Array:
        weights = self._weights(state).astype(np.float32)
        values = self._split(state[VALUES])
        parts = state.blocks(lambda rows: weights[:, :, rows] @ values[:, rows], keep=False)
        slices = np.asarray(np.sum(parts, axis=0, dtype=np.float64))
        joined = slices.transpose(1, 0, 2)
        return np.ascontiguousarray(joined).reshape(len(joined), -1)


def _logits(
    queries: Float64Array, keys: Float64Array, rows: slice, *, heads: Heads
) -> Float64Array:
    """Return the logits (g, q, n) of the queries (g, q, hidden) of some heads, and some keys.

    Args:
        queries: Of the heads chosen.
        keys: Of all heads, (h, N, hidden).
        rows: The keys chosen.
        heads: The heads chosen; all as a slice, since an array copies the keys.
    """
    return np.asarray(queries @ keys[:, rows][heads].transpose(0, 2, 1))


def _attended(
    queries: Float64Array, keys: Float64Array, rows: slice, *, heads: Heads = ALL
) -> Attended:
    """Return what queries attend of some keys, as `_logits`, while these are in the cache."""
    chosen = keys[:, rows][heads]
    logits = queries @ chosen.transpose(0, 2, 1)
    top = logits.max(axis=2, keepdims=True)
    raised = np.exp(logits - top)
    return logits, top, raised.sum(axis=2, keepdims=True), raised @ chosen


def _joined(parts: list[Attended]) -> tuple[Float64Array, Float64Array]:
    """Return the weights (h, q, n) of all rows, and the mean key (h, q, hidden) by them."""
    logits, tops, totals, sums = zip(*parts, strict=True)
    shrunk = np.exp(np.array(tops) - np.max(tops, axis=0))
    mean = (shrunk * sums).sum(axis=0) / (shrunk * totals).sum(axis=0)
    return softmax_rows(np.concatenate(logits, axis=2)), mean
