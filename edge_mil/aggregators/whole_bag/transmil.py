"""TransMIL, and MHIM-MIL's transformer: two Nystrom layers with a grid convolution between.

Source:
    Shao et al. 2021, arXiv:2106.00908; szc19990412/TransMIL, models/TransMIL.py. Tang et al. 2023,
    arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py.
"""

from __future__ import annotations

import math

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, last_layer, layer_norm
from edge_mil.aggregators.whole_bag.nystrom import NystromLayer, grid_convolution
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array

SMALLEST_GRID = 7
"""MHIM-MIL's grids are at least as large as their largest kernel."""


class TransMilAggregator(WholeBagAggregator):
    """The class token after two layers, classified.

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
            arrays: `cls_token` (l,), the layers `layer1` and `layer2`, `ppeg`, `norm`, `head`.
            keep_last: Which rows Nystrom attention returns, as `NystromLayer` takes it.
            repeated: Whether attention counts the repeated instances.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.repeated = arrays, repeated
        self._first = NystromLayer(arrays, "layer1", keep_last)
        self._second = NystromLayer(arrays, "layer2", keep_last)

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits; the attention is no weight of instances."""
        side = _side(len(embeddings))
        rows = [self._arrays["cls_token"].reshape(1, -1), embeddings]
        if self.repeated:
            rows.append(embeddings[: side * side - len(embeddings)])
        sequence = self._first(np.concatenate(rows))
        sequence[1:] = self._convolved(sequence[1:], side)
        # Only the class token is read, so only its row of the second layer is computed.
        last = self._second(sequence, rows=1)
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


def _side(count: int) -> int:
    """Return the side of the smallest square grid that holds `count` instances."""
    return math.isqrt(count - 1) + 1
