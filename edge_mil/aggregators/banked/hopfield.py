"""Hopfield pooling with update steps: the queries are drawn to the keys that they attend.

Source:
    Ramsauer et al. 2021, arXiv:2008.02217, eq. 3; ml-jku/hopfield-layers, hflayers/functional.py
    (`docs/design/aggregators.md`, "Hopfield pooling").
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import check_batch
from edge_mil.aggregators.dense import Arrays, Real, softmax_rows
from edge_mil.aggregators.pooled import PooledAggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array

EMBEDDINGS, KEYS, REMAINDER = "values", "keys", "keys_rest"
"""Arrays of the bank, and outputs of `attend.onnx`."""
Heads = slice | Int64Array
ALL = slice(None)
BlockSums = tuple[Float64Array, Float64Array, Float64Array, Float64Array]
"""The online softmax over one block of n keys: logits (h, q, n), their maximum and the sum of
exp(logit - maximum), both (h, q, 1), and the keys summed with these weights (h, q, hidden)."""
SETTLED = 1e-4
"""Steps of a head end when its weights, of all queries and instances, move by no more
(`update_steps_eps` of the authors)."""


class HopfieldAggregator(PooledAggregator[Bank]):
    """Keeps the keys and embeddings of all instances; each score runs the update steps over them.

    Keys and weights are float64, because update steps can amplify a rounding ten thousand times: a
    key comes as two float32 numbers, the rounded one and the remainder, and is held as one. The
    order of arrival only shows in the last digits of float64.

    Attributes:
        value_dim: Width l of keys and embeddings, of all heads.
        classifier: Takes pooled (b, queries, l).
        steps: Update steps at most.
    """

    incremental = "banked"
    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, steps: int
    ) -> None:
        """Take the sizes and the queries.

        Args:
            value_dim: Width of keys and embeddings.
            classifier: From pooled vectors to the output.
            arrays: `queries` (heads, q, hidden), scaled; `beta`, what moved queries are scaled by.
            steps: Update steps at most.
        """
        self.value_dim, self.classifier, self.steps = value_dim, classifier, steps
        self._queries = arrays["queries"].astype(np.float64)
        self._beta = float(arrays["beta"])
        self._widths = dict.fromkeys((EMBEDDINGS, KEYS, REMAINDER), value_dim)
        self._remainders = {KEYS: REMAINDER}

    def initial_state(self) -> Bank:
        return Bank(self._widths, self._remainders)

    def update(self, state: Bank, batch: InstanceBatch) -> Bank:
        extra = dict.fromkeys((KEYS, REMAINDER), self.value_dim)
        check_batch(batch, self.value_dim, ordered=True, extra=extra)
        if len(batch) == 0 or batch.instance_order is None:
            return state
        arrays = {EMBEDDINGS: batch.embeddings, **batch.extra}
        return state.append({name: arrays[name] for name in self._widths}, batch.instance_order)

    def merge(self, left: Bank, right: Bank) -> Bank:
        return left.extend(right)

    def pooled(self, state: Bank) -> Float64Array:
        weights = self._weights(state).astype(np.float32)
        embeddings = self._split(state[EMBEDDINGS])
        parts = state.blocks(lambda rows: weights[:, :, rows] @ embeddings[:, rows], keep=False)
        heads = np.asarray(np.sum(parts, axis=0, dtype=np.float64)).transpose(1, 0, 2)
        return np.ascontiguousarray(heads).reshape(len(heads), -1)

    def attention(self, state: Bank, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the bag, float32 (n, heads * queries)."""
        if state.count == 0 or batch.instance_order is None:
            return None
        shares = self._weights(state).reshape(-1, state.count).T
        return np.asarray(shares[state.rows_of(batch.instance_order.keys)], dtype=np.float32)

    def to_bytes(self, state: Bank) -> bytes:
        return state.to_bytes()

    def from_bytes(self, data: bytes) -> Bank:
        return Bank.from_bytes(data, self._widths, self._remainders)

    def _split(self, rows: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """Return a view of rows (n, l) as heads (h, n, hidden)."""
        heads = rows.reshape(len(rows), len(self._queries), -1)
        split: npt.NDArray[Real] = heads.transpose(1, 0, 2)
        return split

    def _weights(self, state: Bank) -> Float64Array:
        """Return the association (h, q, n) after the last step, in the order of arrival."""
        keys = self._split(state.exact(KEYS))
        # Association with the learned queries. It depends on each key alone, so that blocks of
        # earlier instances are kept.
        parts = state.blocks(partial(_block_sums, self._queries, keys), keep=True)
        weights, mean_keys = _joined(parts)
        # Each step sets a query to beta times its mean key; a head stops when its weights settle.
        active = np.arange(len(weights))
        for step in range(1, self.steps + 1):
            queries = self._beta * mean_keys
            heads: Heads = ALL if len(active) == len(weights) else active
            if step == self.steps:  # after the last step nobody needs the mean keys
                parts = state.blocks(partial(_logits, queries, keys, heads=heads), keep=False)
                weights[active] = softmax_rows(np.concatenate(parts, axis=2))
                break
            parts = state.blocks(partial(_block_sums, queries, keys, heads=heads), keep=False)
            moved, mean_keys = _joined(parts)
            change = (moved - weights[active]).reshape(len(active), -1)
            weights[active] = moved
            unsettled = np.einsum("hn,hn->h", change, change) > SETTLED**2
            active, mean_keys = active[unsettled], mean_keys[unsettled]
            if not len(active):
                break
        return weights


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


def _block_sums(
    queries: Float64Array, keys: Float64Array, rows: slice, *, heads: Heads = ALL
) -> BlockSums:
    """Return the softmax sums over some keys, as `_logits`, while these are in the cache."""
    chosen = keys[:, rows][heads]
    logits = queries @ chosen.transpose(0, 2, 1)
    peak = logits.max(axis=2, keepdims=True)
    unnormalised = np.exp(logits - peak)
    return logits, peak, unnormalised.sum(axis=2, keepdims=True), unnormalised @ chosen


def _joined(parts: list[BlockSums]) -> tuple[Float64Array, Float64Array]:
    """Return the weights (h, q, n) of all rows, and the mean key (h, q, hidden) by them."""
    logits, peaks, masses, sums = zip(*parts, strict=True)
    scale = np.exp(np.array(peaks) - np.max(peaks, axis=0))
    mean = (scale * sums).sum(axis=0) / (scale * masses).sum(axis=0)
    return softmax_rows(np.concatenate(logits, axis=2)), mean
