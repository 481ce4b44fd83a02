"""WiKG: each instance listens to its nearest others, then attention pooling."""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import (
    Arrays,
    attention_weights,
    last_layer,
    layer_norm,
    linear,
    softmax_rows,
)
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array, Int64Array

SLOPE = 0.01
"""Of a leaky ReLU below zero."""
QUERY_ROWS, KEY_ROWS = 512, 2048
"""Sides of a tile of the N x N products: 4 MB in float32, which stays in the cache."""
SPARSE = 32
"""A tile of which less than this part exceeds what its rows have is taken product by product."""
GATHERED = 4_000_000
"""Numbers of neighbours' rows that are in work at once."""


class WikgAggregator(WholeBagAggregator):
    """Builds the graph of the `topk` nearest anew for each score; any order of the bag.

    A tile of the N x N products is in memory at a time, with a running top-k of each row.

    Attributes:
        topk: Neighbours of an instance; a smaller bag has no score yet.

    Source:
        Li et al. 2024, arXiv:2403.07719; WonderLandxD/WiKG, model.py; `aggregators.md`, 4.13.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, topk: int
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Says what the logits mean.
            arrays: `head`, `tail`, `sum`, `product`, `gate.0`, `gate.2`, `norm`, `classifier`.
            topk: See above.
        """
        super().__init__(value_dim, classifier, smallest=topk)
        self._arrays, self.topk = arrays, topk

    def forward(self, values: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and each instance's weight in the last pooling, (n, 1)."""
        centre = values.mean(axis=0, dtype=np.float64).astype(np.float32)
        h = (values + centre) * np.float32(0.5)
        heads, tails = linear(h, self._arrays, "head"), linear(h, self._arrays, "tail")
        near, products = nearest(heads, tails, self.topk)
        heard = _listened(heads, tails, near, products)
        mixed = leaky(linear(heads + heard, self._arrays, "sum"))
        mixed += leaky(linear(heads * heard, self._arrays, "product"))
        gate = linear(leaky(linear(mixed, self._arrays, "gate.0")), self._arrays, "gate.2")
        weights = attention_weights(gate)
        pooled = (weights.T @ mixed.astype(np.float64)).astype(np.float32)
        logits = last_layer(layer_norm(pooled, self._arrays, "norm"), self._arrays, "classifier")
        return logits, weights.astype(np.float32)


def leaky(x: Float32Array) -> Float32Array:
    """Return x where it is positive and a hundredth of it elsewhere."""
    return np.where(x > 0, x, np.float32(SLOPE) * x)


def nearest(
    heads: Float32Array, tails: Float32Array, count: int
) -> tuple[Int64Array, Float32Array]:
    """Return the `count` tails of the largest scaled product with each head.

    Args:
        heads: float32 (n, l).
        tails: float32 (n, l).
        count: How many of each row; n or fewer.

    Returns:
        Their rows, int64 (n, count), and products over sqrt(l), float32 (n, count).
    """
    scaled = heads * np.float32(heads.shape[1] ** -0.5)
    found = np.empty((len(heads), count), dtype=np.int64)
    best = np.empty((len(heads), count), dtype=np.float32)
    room = np.empty((QUERY_ROWS, KEY_ROWS), dtype=np.float32)
    for start in range(0, len(heads), QUERY_ROWS):
        rows = scaled[start : start + QUERY_ROWS]
        kept = np.empty((len(rows), 0), dtype=np.float32)
        index = np.empty((len(rows), 0), dtype=np.int64)
        for first in range(0, len(tails), KEY_ROWS):
            keys = tails[first : first + KEY_ROWS]
            products = np.matmul(rows, keys.T, out=room[: len(rows), : len(keys)])
            kept, index = _with_tile(kept, index, products, first, count)
        found[start : start + QUERY_ROWS], best[start : start + QUERY_ROWS] = index, kept
    return found, best


def _with_tile(
    kept: Float32Array, index: Int64Array, products: Float32Array, first: int, count: int
) -> tuple[Float32Array, Int64Array]:
    """Return the largest `count` of each row, and their columns, after a tile from column `first`.

    Once a row has `count`, hardly any product of a tile exceeds the least of them: finding those
    few is one comparison with each product, where a partition of the tile moves them all.
    """
    if kept.shape[1] == count:
        # In one dimension: numpy is far slower in two.
        exceeding = np.flatnonzero(products > kept.min(axis=1, keepdims=True))
        if len(exceeding) <= products.size // SPARSE:
            rows, columns = np.divmod(exceeding, products.shape[1])
            return _with_few(kept, index, rows, columns + first, products[rows, columns])
    chosen = _largest(products, count)
    kept = np.concatenate([kept, np.take_along_axis(products, chosen, axis=1)], axis=1)
    index = np.concatenate([index, chosen + first], axis=1)
    again = _largest(kept, count)
    return np.take_along_axis(kept, again, axis=1), np.take_along_axis(index, again, axis=1)


def _with_few(
    kept: Float32Array,
    index: Int64Array,
    rows: Int64Array,
    columns: Int64Array,
    products: Float32Array,
) -> tuple[Float32Array, Int64Array]:
    """Return kept and index after some further products of some rows."""
    touched, at = np.unique(rows, return_inverse=True)
    count = kept.shape[1]
    slots = np.concatenate([np.repeat(np.arange(len(touched)), count), at])
    every = np.concatenate([kept[touched].ravel(), products])
    places = np.concatenate([index[touched].ravel(), columns])
    order = np.lexsort((-every, slots))
    starts = np.searchsorted(slots[order], np.arange(len(touched)))
    chosen = order[starts[:, None] + np.arange(count)]
    kept[touched], index[touched] = every[chosen], places[chosen]
    return kept, index


def _largest(rows: Float32Array, count: int) -> Int64Array:
    """Return the columns of the largest numbers of each row, or all, int64 (n, <= count)."""
    width = rows.shape[1]
    if width <= count:
        return np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
    return np.argpartition(rows, width - count, axis=1)[:, width - count :]


def _listened(
    heads: Float32Array, tails: Float32Array, near: Int64Array, products: Float32Array
) -> Float32Array:
    """Return what each instance hears of its neighbours, float32 (n, l).

    A neighbour's weight comes from the product of two sums, as published: not a dot product.
    """
    heard = np.empty_like(heads)
    sums = tails.sum(axis=1, dtype=np.float64)
    step = max(1, GATHERED // (near.shape[1] * heads.shape[1]))
    for start in range(0, len(heads), step):
        part = slice(start, start + step)
        shares = softmax_rows(products[part].copy())[:, :, None]
        own, others = heads[part][:, None], tails[near[part]]
        gates = np.tanh(own + shares * others + (1 - shares) * own)
        weights = softmax_rows(sums[near[part]] * gates.sum(axis=2, dtype=np.float64))
        heard[part] = np.einsum("nk,nkl->nl", weights.astype(np.float32), others)
    return heard
