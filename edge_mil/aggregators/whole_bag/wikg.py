"""WiKG: each instance attends its nearest others, then attention pooling.

Source:
    Li et al. 2024, arXiv:2403.07719; WonderLandxD/WiKG, model.py.
"""

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
"""Of a leaky ReLU below zero: torch's default, which the authors use."""
QUERY_ROWS, KEY_ROWS = 512, 2048
"""Sides of a tile of the N x N products: 4 MB in float32, which stays in the cache."""
SPARSE = 32
"""A tile of which less than this part exceeds what its rows hold is merged product by product."""
GATHERED = 4_000_000
"""Numbers of neighbours' rows that are held at once."""


class WikgAggregator(WholeBagAggregator):
    """Builds the graph of the `topk` nearest anew for each score; any order of the bag.

    A tile of the N x N products is in memory at a time, with a running top-k of each row.

    Attributes:
        topk: Neighbours of an instance; a smaller bag has no score yet.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, topk: int
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `head`, `tail`, `sum`, `product`, `gate.0`, `gate.2`, `norm`, `classifier`.
            topk: Neighbours of an instance.
        """
        super().__init__(value_dim, classifier, smallest=topk)
        self._arrays, self.topk = arrays, topk

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and each instance's weight in the last pooling, (n, 1)."""
        arrays = self._arrays
        # Half of each embedding is the bag's mean.
        centre = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        h = (embeddings + centre) * np.float32(0.5)
        # Each head attends its nearest tails.
        heads, tails = linear(h, arrays, "head"), linear(h, arrays, "tail")
        near, products = nearest(heads, tails, self.topk)
        neighbours = _neighbour_means(heads, tails, near, products)
        # Bi-interaction of an instance with its neighbours.
        mixed = leaky(linear(heads + neighbours, arrays, "sum"))
        mixed += leaky(linear(heads * neighbours, arrays, "product"))
        # Gate pooling, layer norm, classifier.
        gate = linear(leaky(linear(mixed, arrays, "gate.0")), arrays, "gate.2")
        weights = attention_weights(gate)
        pooled = (weights.T @ mixed.astype(np.float64)).astype(np.float32)
        logits = last_layer(layer_norm(pooled, arrays, "norm"), arrays, "classifier")
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
    near = np.empty((len(heads), count), dtype=np.int64)
    largest = np.empty((len(heads), count), dtype=np.float32)
    buffer = np.empty((QUERY_ROWS, KEY_ROWS), dtype=np.float32)
    for start in range(0, len(heads), QUERY_ROWS):
        queries = scaled[start : start + QUERY_ROWS]
        kept = np.empty((len(queries), 0), dtype=np.float32)
        index = np.empty((len(queries), 0), dtype=np.int64)
        for first in range(0, len(tails), KEY_ROWS):
            keys = tails[first : first + KEY_ROWS]
            tile = np.matmul(queries, keys.T, out=buffer[: len(queries), : len(keys)])
            kept, index = _with_tile(kept, index, tile, first, count)
        near[start : start + QUERY_ROWS], largest[start : start + QUERY_ROWS] = index, kept
    return near, largest


def _with_tile(
    kept: Float32Array, index: Int64Array, tile: Float32Array, first: int, count: int
) -> tuple[Float32Array, Int64Array]:
    """Return the largest `count` products of each row and their columns, after one more tile.

    Once a row has `count`, hardly any product of a tile exceeds the least of them: finding those
    few is one comparison with each product, where a partition of the tile moves them all.

    Args:
        kept: Largest products so far, float32 (n, <= count).
        index: Their columns, int64, the same shape.
        tile: Products of further columns, float32 (n, m).
        first: Column of the tile's first.
        count: How many to keep.
    """
    if kept.shape[1] == count:
        # In one dimension: numpy is far slower in two.
        exceeding = np.flatnonzero(tile > kept.min(axis=1, keepdims=True))
        if len(exceeding) <= tile.size // SPARSE:
            rows, columns = np.divmod(exceeding, tile.shape[1])
            return _with_few(kept, index, rows, columns + first, tile[rows, columns])
    chosen = _largest(tile, count)
    kept = np.concatenate([kept, np.take_along_axis(tile, chosen, axis=1)], axis=1)
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
    # The kept and the further products of each touched row, sorted by row and from the largest.
    touched, at = np.unique(rows, return_inverse=True)
    count = kept.shape[1]
    groups = np.concatenate([np.repeat(np.arange(len(touched)), count), at])
    all_products = np.concatenate([kept[touched].ravel(), products])
    all_columns = np.concatenate([index[touched].ravel(), columns])
    order = np.lexsort((-all_products, groups))
    # The first `count` of each row are kept.
    starts = np.searchsorted(groups[order], np.arange(len(touched)))
    chosen = order[starts[:, None] + np.arange(count)]
    kept[touched], index[touched] = all_products[chosen], all_columns[chosen]
    return kept, index


def _largest(rows: Float32Array, count: int) -> Int64Array:
    """Return the columns of the largest numbers of each row, or all, int64 (n, <= count)."""
    width = rows.shape[1]
    if width <= count:
        return np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
    return np.argpartition(rows, width - count, axis=1)[:, width - count :]


def _neighbour_means(
    heads: Float32Array, tails: Float32Array, near: Int64Array, products: Float32Array
) -> Float32Array:
    """Return the weighted mean of each instance's neighbours, float32 (n, l).

    The weight logit of a neighbour is the product of two sums, as published: not a dot product.

    Args:
        heads: float32 (n, l).
        tails: float32 (n, l).
        near: Rows of each instance's neighbours, int64 (n, k).
        products: Their scaled products, float32 (n, k).
    """
    means = np.empty_like(heads)
    sums = tails.sum(axis=1, dtype=np.float64)
    step = max(1, GATHERED // (near.shape[1] * heads.shape[1]))
    for start in range(0, len(heads), step):
        part = slice(start, start + step)
        own, others = heads[part][:, None], tails[near[part]]
        # r = p t + (1 - p) e with p the softmax of the products; g = tanh(e + r).
        shares = softmax_rows(products[part].copy())[:, :, None]
        gates = np.tanh(own + shares * others + (1 - shares) * own)
        # The weights are the softmax of (sum of t) (sum of g).
        weights = softmax_rows(sums[near[part]] * gates.sum(axis=2, dtype=np.float64))
        means[part] = np.einsum("nk,nkl->nl", weights.astype(np.float32), others)
    return means
