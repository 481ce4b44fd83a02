"""Transformers with full attention between all instances: any order of the bag.

Source:
    Vaswani et al. 2017, arXiv:1706.03762; mahmoodlab/MIL-Lab, src/models/transformer.py;
    KatherLab/STAMP, src/stamp/modeling/models/vision_tranformer.py; Franblueee/torchmil,
    torchmil/models/transformer_abmil.py. The bias by distance: Press et al. 2022, arXiv:2108.12409,
    as STAMP has it.
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
    sigmoid,
    softmax_rows,
)
from edge_mil.aggregators.whole_bag.nystrom import with_mlp
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array

PRODUCTS = 1 << 22
"""Attention weights of one head that are held at once: 16 MB."""


class TransformerAggregator(WholeBagAggregator):
    """Layers x + attention(LN x), perhaps an MLP; then the class token, or attention pooling.

    Attributes:
        needs_positions: Whether the attention depends on distances between the instances.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, activation: str = "tanh"
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `heads`; `layers`.i.norm, .qkv, perhaps .out, .norm2, .mlp.0, .mlp.1, and
                .slope (heads,), the attention's loss for each unit of distance; `norm`; `head`.
                `cls_token` (l,) where the class token is read, else `pool.branch`, perhaps
                `pool.gate`, and `pool.last`. `add_self`, where the network's input is added after
                every layer.
            activation: Of the pooling's branch: relu, gelu or tanh.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self._activation = arrays, activation
        self._heads = int(arrays["heads"])
        self._layers = sum(name.endswith(".qkv.weight") for name in arrays)
        self._add_self = bool(arrays.get("add_self", False))
        self.needs_positions = "layers.0.slope" in arrays

    def forward(
        self, embeddings: Float32Array, positions: Float32Array | None = None
    ) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits, and the pooling's attention (n, 1) where there is a pooling."""
        arrays, x = self._arrays, embeddings
        has_token = "cls_token" in arrays
        if has_token:
            x = np.concatenate([arrays["cls_token"].reshape(1, -1), embeddings])
            if positions is not None:  # the class token lies at the origin
                positions = np.concatenate([np.zeros((1, 2), dtype=np.float32), positions])
        given = x
        for layer in range(self._layers):
            at = f"layers.{layer}"
            # Of the last layer only the class token is read.
            rows = 1 if has_token and layer == self._layers - 1 else len(x)
            mixed = self._attend(layer_norm(x, arrays, f"{at}.norm"), rows, at, positions)
            if f"{at}.out.weight" in arrays:
                mixed = linear(mixed, arrays, f"{at}.out")
            x = with_mlp(x[:rows] + mixed, arrays, at)
            if self._add_self:
                x = x + given[:rows]
        if has_token:
            return last_layer(layer_norm(x[:1], arrays, "norm"), arrays, "head"), None
        return self._pooled(layer_norm(x, arrays, "norm"))

    def _pooled(self, h: Float32Array) -> tuple[Float64Array, Float32Array]:
        """Return the logits of rows (n, l) that are pooled by attention, and their weights."""
        arrays = self._arrays
        hidden = activate(linear(h, arrays, "pool.branch"), self._activation)
        if "pool.gate.weight" in arrays:
            hidden = hidden * sigmoid(linear(h, arrays, "pool.gate"))
        weights = attention_weights(linear(hidden, arrays, "pool.last"))
        pooled = weights.T @ h.astype(np.float64)
        return last_layer(pooled, arrays, "head"), weights.astype(np.float32)

    def _attend(
        self, x: Float32Array, rows: int, at: str, positions: Float32Array | None
    ) -> Float32Array:
        """Return the first `rows` rows of all heads' attention side by side, (rows, inner)."""
        projected = linear(x, self._arrays, f"{at}.qkv")
        inner = projected.shape[1] // 3
        each = inner // self._heads
        split = projected.reshape(len(x), 3, self._heads, each).transpose(1, 2, 0, 3)
        query, key, value = (np.ascontiguousarray(part) for part in split)
        query *= np.float32(each**-0.5)
        slopes = self._arrays.get(f"{at}.slope")
        out = np.empty((rows, inner), dtype=np.float32)
        step = max(1, PRODUCTS // len(x))
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            distances = None
            if slopes is not None and positions is not None:
                distances = distances_between(positions[part], positions)
            for head in range(self._heads):
                weights = softmax_rows(query[head, part] @ key[head].T)
                if slopes is not None and distances is not None:
                    # As published: outside of the softmax, and not normalised again.
                    weights -= slopes[head] * distances
                out[part, head * each : (head + 1) * each] = weights @ value[head]
        return out


def distances_between(first: Float32Array, second: Float32Array) -> Float32Array:
    """Return the distances between points (n, 2) and (m, 2), float32 (n, m)."""
    across, down = (first[:, None, axis] - second[None, :, axis] for axis in (0, 1))
    return np.asarray(np.hypot(across, down), dtype=np.float32)
