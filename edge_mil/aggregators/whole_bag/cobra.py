"""COBRA: a causal state-space encoder of the bag, and attention over the raw features.

Source:
    Lenz et al. 2025, arXiv:2411.13623; KatherLab/COBRA, cobra/model/cobra.py. The scan: Dao and Gu
    2024, arXiv:2405.21060 (Mamba2), with one decay for each head.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import (
    Arrays,
    attention_weights,
    gelu,
    layer_norm,
    linear,
    sigmoid,
)
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array

RMS_EPS = 1e-5
"""What Mamba2 adds to the mean square of a row before its root."""


class CobraAggregator(WholeBagAggregator):
    """Weighs the raw features by gated attention over encoded ones, in several heads.

    The attention logits of the heads are averaged before the one softmax.
    """

    def __init__(self, value_dim: int, classifier: Classifier, arrays: Arrays) -> None:
        """Take the weights.

        Args:
            value_dim: Width of a feature: the bag is kept as it is.
            classifier: Says that the answer is a pooled vector.
            arrays: `embed.norm`, `embed.0`, `embed.1`; `fc1`; `layers`.i.norm and the weights of
                its scan; `classifier`, `norm`; `attention`.c.branch, .gate and .last.
        """
        super().__init__(value_dim, classifier)
        self._arrays = arrays
        self._layers = sum(name.endswith(".in_proj.weight") for name in arrays)
        self._heads = sum(name.endswith(".branch.weight") for name in arrays)

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the pooled features, (value_dim,), and the instances' weights, (n, 1)."""
        arrays = self._arrays
        # The embedding of this feature width, then the encoder.
        hidden = linear(layer_norm(embeddings, arrays, "embed.norm"), arrays, "embed.0")
        h = gelu(linear(linear(silu(hidden), arrays, "embed.1"), arrays, "fc1"))
        for layer in range(self._layers):
            at = f"layers.{layer}"
            h = h + self._scanned(layer_norm(h, arrays, f"{at}.norm"), at)
        h = layer_norm(linear(h, arrays, "classifier"), arrays, "norm")
        # Head c has the features e * heads + c.
        logits = np.zeros((len(h), 1))
        for head in range(self._heads):
            part, at = np.ascontiguousarray(h[:, head :: self._heads]), f"attention.{head}"
            branch = np.tanh(linear(part, arrays, f"{at}.branch"))
            gate = sigmoid(linear(part, arrays, f"{at}.gate"))
            logits += linear(branch * gate, arrays, f"{at}.last") / self._heads
        weights = attention_weights(logits.astype(np.float32))
        pooled = weights[:, 0] @ embeddings.astype(np.float64)
        return np.asarray(pooled), weights.astype(np.float32)

    def _scanned(self, u: Float32Array, at: str) -> Float32Array:
        """Return out_proj of the gated and normalised scan over rows (n, l), float32 (n, l)."""
        arrays = self._arrays
        decay = arrays[f"{at}.A"]  # of each head, below 0
        heads, inner = len(decay), len(arrays[f"{at}.rms.weight"])
        projected = linear(u, arrays, f"{at}.in_proj")
        gates, mixed = projected[:, :inner], projected[:, inner:-heads]
        pace = softplus(projected[:, -heads:] + arrays[f"{at}.dt_bias"])
        # A causal depth-wise convolution over inputs, B and C, then a silu.
        kernel, bias = arrays[f"{at}.conv1d.weight"], arrays[f"{at}.conv1d.bias"]
        taps = kernel.shape[1]
        before = np.concatenate([np.zeros((taps - 1, mixed.shape[1]), np.float32), mixed])
        convolved = np.tile(bias, (len(mixed), 1))
        for tap in range(taps):
            convolved += before[tap : tap + len(mixed)] * kernel[:, tap]
        convolved = silu(convolved)
        states = (mixed.shape[1] - inner) // 2
        x = convolved[:, :inner].reshape(len(u), heads, -1)
        b, c = convolved[:, inner : inner + states], convolved[:, inner + states :]
        # s = exp(dt A) s + dt x B, y = s C + D x, for each head.
        kept = np.exp(pace * decay)
        written = pace[:, :, None] * x
        y = np.empty_like(x)
        state = np.zeros((*x.shape[1:], states), dtype=np.float32)
        for step in range(len(u)):
            state *= kept[step][:, None, None]
            state += written[step][:, :, None] * b[step]
            np.matmul(state, c[step], out=y[step])
        y += arrays[f"{at}.D"][:, None] * x
        gated = y.reshape(len(u), inner) * silu(gates)
        size = np.sqrt(np.mean(gated.astype(np.float64) ** 2, axis=1, keepdims=True) + RMS_EPS)
        normal = (gated / size).astype(np.float32) * arrays[f"{at}.rms.weight"]
        return linear(normal, arrays, f"{at}.out_proj")


def silu(x: Float32Array) -> Float32Array:
    """Return x times its sigmoid."""
    return np.asarray(x * sigmoid(x), dtype=np.float32)


def softplus(x: Float32Array) -> Float32Array:
    """Return log(1 + exp(x)), in a form that does not overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), dtype=np.float32)
