"""TransMIL and its relatives: Nystrom layers, with a grid convolution after the first.

Source:
    Shao et al. 2021, arXiv:2106.00908; szc19990412/TransMIL, models/TransMIL.py. Tang et al. 2023,
    arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py.
"""

from __future__ import annotations

import math

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import (
    Arrays,
    activate,
    attention_weights,
    last_layer,
    layer_norm,
    linear,
)
from edge_mil.aggregators.whole_bag.nystrom import NystromLayer, grid_convolution
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array

SMALLEST_GRID = 7
"""MHIM-MIL's grids are at least as large as their largest kernel."""


class TransMilAggregator(WholeBagAggregator):
    """The class token after all layers, classified.

    Attributes:
        repeated: True for TransMIL, whose attention too sees the instances that are repeated to
            fill the grid; False for MHIM-MIL, which fills the grid for the convolution only.
    """

    def __init__(
        self,
        value_dim: int,
        classifier: Classifier,
        arrays: Arrays,
        *,
        keep_last: bool,
        repeated: bool,
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `cls_token` (l,), the layers `layer1`, `layer2`, ..., `ppeg`, `norm`, `head`.
            keep_last: Which rows Nystrom attention returns, as `NystromLayer` takes it.
            repeated: Whether attention counts the repeated instances.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.repeated = arrays, repeated
        self._layers = nystrom_layers(arrays, keep_last=keep_last)

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits; the attention is no weight of instances."""
        side = _side(len(embeddings))
        rows = [self._arrays["cls_token"].reshape(1, -1), embeddings]
        if self.repeated:
            rows.append(embeddings[: side * side - len(embeddings)])
        first, *others = self._layers
        sequence = first(np.concatenate(rows))
        sequence[1:] = self._convolved(sequence[1:], side)
        for layer in others[:-1]:
            sequence = layer(sequence)
        # Only the class token is read, so only its row of the last layer is computed.
        last = others[-1](sequence, rows=1) if others else sequence[:1]
        return last_layer(layer_norm(last, self._arrays, "norm"), self._arrays, "head"), None

    def _convolved(self, rows: Float32Array, side: int) -> Float32Array:
        """Return the rows after the convolution over their grid."""
        count, width = rows.shape
        grid = rows
        if not self.repeated:
            # MHIM-MIL: the first rows again, then zeros up to 7 x 7.
            filled = side * side
            side = max(side, SMALLEST_GRID)
            grid = np.zeros((side * side, width), dtype=np.float32)
            grid[:count] = rows
            grid[count:filled] = rows[: filled - count]
        square = grid.reshape(side, side, width)
        return grid_convolution(square, self._arrays, "ppeg").reshape(-1, width)[:count]


class NystromPoolAggregator(WholeBagAggregator):
    """Nystrom layers over the bag in its order, a layer norm, attention pooling, a classifier.

    MIL-Lab's RRT is this: in spite of its name it has no regions.

    Source:
        mahmoodlab/MIL-Lab, src/models/rrt.py.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, activation: str
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: The layers `layer1`, `layer2`, ..., `norm`, `attention.0`, `attention.2`,
                `classifier`.
            activation: Of the pooling's branch: relu, gelu or tanh.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self._activation = arrays, activation
        self._layers = nystrom_layers(arrays, keep_last=True)

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and the pooling's attention, (n, 1)."""
        arrays, h = self._arrays, embeddings
        for layer in self._layers:
            h = layer(h)
        h = layer_norm(h, arrays, "norm")
        hidden = activate(linear(h, arrays, "attention.0"), self._activation)
        weights = attention_weights(linear(hidden, arrays, "attention.2"))
        pooled = weights.T @ h.astype(np.float64)
        return last_layer(pooled, arrays, "classifier"), weights.astype(np.float32)


def nystrom_layers(arrays: Arrays, *, keep_last: bool) -> list[NystromLayer]:
    """Return the layers `layer1`, `layer2`, ... of the arrays."""
    count = sum(name.startswith("layer") and name.endswith(".norm.weight") for name in arrays)
    return [NystromLayer(arrays, f"layer{number + 1}", keep_last) for number in range(count)]


def _side(count: int) -> int:
    """Return the side of the smallest square grid that holds `count` instances."""
    return math.isqrt(count - 1) + 1
