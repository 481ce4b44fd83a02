"""WiKG as MIL-Lab rewrote it: neighbours are weighed by a dot product.

Source:
    Li et al. 2024, arXiv:2403.07719; mahmoodlab/MIL-Lab, src/models/wikg.py.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import (
    Arrays,
    activate,
    attention_weights,
    last_layer,
    layer_norm,
    linear,
    softmax_rows,
)
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.aggregators.whole_bag.wikg import GATHERED, leaky, nearest
from edge_mil.types import Float32Array, Float64Array, Int64Array


class WikgMillabAggregator(WholeBagAggregator):
    """Builds the graph of the `topk` nearest anew for each score; any order of the bag.

    Attributes:
        topk: Neighbours of an instance; a smaller bag has no score yet.
    """

    def __init__(
        self,
        value_dim: int,
        classifier: Classifier,
        arrays: Arrays,
        *,
        topk: int,
        activation: str,
        readout: str,
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `head`, `tail`; `sum` and `product`, or `mix`; `gate.0` and `gate.2` where there
                is a gate; `norm`, `classifier`.
            topk: Neighbours of an instance.
            activation: Of the mixing: leaky_relu, relu or tanh.
            readout: mean or max, where there is no gate.
        """
        super().__init__(value_dim, classifier, smallest=topk)
        self._arrays, self.topk = arrays, topk
        self._activation, self._readout = activation, readout

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and, where there is a gate, each instance's weight, (n, 1)."""
        arrays = self._arrays
        # Half of each embedding is the bag's mean.
        centre = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        h = (embeddings + centre) * np.float32(0.5)
        # Each head attends its nearest tails, and is mixed with what it finds.
        heads, tails = linear(h, arrays, "head"), linear(h, arrays, "tail")
        near, products = nearest(heads, tails, self.topk)
        mixed = self._mixed(heads, _neighbour_means(heads, tails, near, products))
        # Gate pooling, mean or maximum; layer norm, classifier.
        weights: Float64Array | None = None
        if "gate.0.weight" in arrays:
            gate = linear(leaky(linear(mixed, arrays, "gate.0")), arrays, "gate.2")
            weights = attention_weights(gate)
            pooled = weights.T @ mixed.astype(np.float64)
        elif self._readout == "mean":
            pooled = mixed.mean(axis=0, dtype=np.float64, keepdims=True)
        else:
            pooled = mixed.max(axis=0, keepdims=True).astype(np.float64)
        normal = layer_norm(pooled.astype(np.float32), arrays, "norm")
        shown = None if weights is None else weights.astype(np.float32)
        return last_layer(normal, arrays, "classifier"), shown

    def _mixed(self, heads: Float32Array, neighbours: Float32Array) -> Float32Array:
        """Return each instance after mixing it with its neighbours' mean, float32 (n, l)."""
        arrays = self._arrays
        if "sum.weight" in arrays:
            mixed = self._activated(linear(heads + neighbours, arrays, "sum"))
            return mixed + self._activated(linear(heads * neighbours, arrays, "product"))
        both = heads + neighbours
        if arrays["mix.weight"].shape[1] > heads.shape[1]:
            both = np.concatenate([heads, neighbours], axis=1)
        return self._activated(linear(both, arrays, "mix"))

    def _activated(self, x: Float32Array) -> Float32Array:
        return leaky(x) if self._activation == "leaky_relu" else activate(x, self._activation)


def _neighbour_means(
    heads: Float32Array, tails: Float32Array, near: Int64Array, products: Float32Array
) -> Float32Array:
    """Return the weighted mean of each instance's neighbours, float32 (n, l).

    Args:
        heads: float32 (n, l).
        tails: float32 (n, l).
        near: Rows of each instance's neighbours, int64 (n, k).
        products: Their scaled products, float32 (n, k).
    """
    means = np.empty_like(heads)
    step = max(1, GATHERED // (near.shape[1] * heads.shape[1]))
    for start in range(0, len(heads), step):
        part = slice(start, start + step)
        others = tails[near[part]]
        # g = tanh(e + p t) with p the softmax of the products; the weight's logit is g . t.
        shares = softmax_rows(products[part].copy())[:, :, None]
        gates = np.tanh(heads[part][:, None] + shares * others)
        weights = softmax_rows(np.einsum("nkl,nkl->nk", gates, others))
        means[part] = np.einsum("nk,nkl->nl", weights, others)
    return means
