"""Prov-GigaPath's slide encoder: a transformer of dilated attention over tiles with coordinates.

Source:
    Xu et al. 2024, doi:10.1038/s41586-024-07441-w; prov-gigapath/prov-gigapath,
    gigapath/slide_encoder.py. Dilated attention: Ding et al. 2023, arXiv:2307.02486, as torchscale
    has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, gelu, layer_norm, linear
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.errors import InvalidInstancesError
from edge_mil.types import Float32Array, Float64Array, Int64Array

WAVELENGTH = 10_000
"""Base of the wavelengths of the position table."""
MISSING = -1e8
"""Log-sum-exp of a row that a branch does not see; the authors' constant."""
PRODUCTS = 1 << 22
"""Attention weights that are held at once: 16 MB."""


@dataclass(frozen=True, slots=True)
class LongNetSettings:
    """What the file does not tell.

    Attributes:
        heads: Heads of every attention.
        grid: Side of the table of positions, in tiles.
        tile_size: Distance of neighbouring tiles, in the unit of the coordinates.
        mean: Whether the tiles' mean is the answer; False: the class token is.
        branches: Segment length and dilation of each branch.
    """

    heads: int
    grid: int
    tile_size: int
    mean: bool
    branches: tuple[tuple[int, int], ...]


class LongNetAggregator(WholeBagAggregator):
    """Layers of dilated attention over the tiles in their order, after a class token."""

    needs_positions = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, settings: LongNetSettings
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Says that the answer is a pooled vector.
            arrays: `cls_token`; `layers`.i.norm1, .qkv, .inner_norm, .out, .norm2, .fc1, .mlp_norm
                and .fc2; `encoder_norm`, `norm`.
            settings: What the file does not tell.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self._settings = arrays, settings
        self._layers = sum(name.endswith(".qkv.weight") for name in arrays)

    def forward(
        self, embeddings: Float32Array, positions: Float32Array | None = None
    ) -> tuple[Float64Array, Float32Array | None]:
        """Return the slide's vector, (value_dim,); there is no attention of instances."""
        assert positions is not None
        arrays, settings = self._arrays, self._settings
        cells = grid_cells(positions, settings.tile_size, settings.grid)
        token = arrays["cls_token"].reshape(1, -1)
        x = np.concatenate([token, embeddings + position_codes(cells, self.value_dim)])
        for layer in range(self._layers):
            at = f"layers.{layer}"
            mixed = self._attend(layer_norm(x, arrays, f"{at}.norm1"), at)
            x = x + linear(layer_norm(mixed, arrays, f"{at}.inner_norm"), arrays, f"{at}.out")
            hidden = gelu(linear(layer_norm(x, arrays, f"{at}.norm2"), arrays, f"{at}.fc1"))
            x = x + linear(layer_norm(hidden, arrays, f"{at}.mlp_norm"), arrays, f"{at}.fc2")
        x = layer_norm(x, arrays, "encoder_norm")
        row = x[1:].mean(axis=0, keepdims=True) if settings.mean else x[:1]
        return layer_norm(row, arrays, "norm")[0].astype(np.float64), None

    def _attend(self, x: Float32Array, at: str) -> Float32Array:
        """Return all branches mixed by the softmax of their log-sum-exp, float32 (n, l)."""
        heads = self._settings.heads
        projected = linear(x, self._arrays, f"{at}.qkv")
        split = projected.reshape(len(x), 3, heads, -1).transpose(1, 2, 0, 3)
        query, key, value = (np.ascontiguousarray(part) for part in split)
        query *= np.float32(query.shape[2] ** -0.5)
        rows, sums = [], []
        for segment, ratio in self._settings.branches:
            out = np.zeros_like(value)
            logs = np.full((heads, len(x)), MISSING)
            _dilated(query, key, value, min(segment, len(x)), ratio, out, logs)
            rows.append(out)
            sums.append(np.where(logs == 0, MISSING, logs))
        stacked = np.stack(sums)
        shares = np.exp(stacked - stacked.max(axis=0))
        shares /= shares.sum(axis=0)
        mixed = sum(
            share[:, :, None].astype(np.float32) * out
            for share, out in zip(shares, rows, strict=True)
        )
        return np.ascontiguousarray(np.asarray(mixed).transpose(1, 0, 2)).reshape(len(x), -1)


def _dilated(
    query: Float32Array,
    key: Float32Array,
    value: Float32Array,
    segment: int,
    ratio: int,
    out: Float32Array,
    logs: Float64Array,
) -> None:
    """Write one branch's rows (heads, n, each) and their log-sum-exp (heads, n).

    The sequence is cut into segments; in a segment head group r of `ratio` sees rows r, r + ratio,
    and so on. Rows beyond the end of the sequence or the segment are zeros, which take part as
    keys: each adds exp(0) to the sum of weights, and nothing to the values.
    """
    heads, count, _ = query.shape
    group = -(-heads // ratio)
    length = -(-segment // ratio)
    for head in range(heads):
        first = head // group
        for start in range(0, count, segment):
            seen = np.arange(start + first, min(start + segment, count), ratio)
            if len(seen) == 0:
                continue
            zeros = length - len(seen)
            step = max(1, PRODUCTS // len(seen))
            keys, values = key[head, seen].T, value[head, seen]
            for at in range(0, len(seen), step):
                rows = seen[at : at + step]
                logits = query[head, rows] @ keys
                peak = logits.max(axis=1, keepdims=True)
                if zeros:
                    peak = np.maximum(peak, 0)
                weights = np.exp(logits - peak)
                mass = weights.sum(axis=1, keepdims=True) + zeros * np.exp(-peak)
                out[head, rows] = weights @ values / mass
                logs[head, rows] = (peak + np.log(mass))[:, 0]


def grid_cells(positions: Float32Array, tile_size: int, grid: int) -> Int64Array:
    """Return the cells of coordinates, int64 (n, 2).

    Raises:
        InvalidInstancesError: One lies outside of the table of positions.
    """
    cells = np.floor(positions.astype(np.float64) / tile_size).astype(np.int64)
    if len(cells) and not (cells.min() >= 0 and cells.max() < grid):
        raise InvalidInstancesError(
            f"The coordinates give cells from {cells.min()} to {cells.max()} at a tile size of "
            f"{tile_size}, and this head knows 0 to {grid - 1}; save coordinates in the unit of "
            "training, from the slide's corner."
        )
    return cells


def position_codes(cells: Int64Array, width: int) -> Float32Array:
    """Return the sine and cosine code of cells, float32 (n, width).

    The first half is of the second coordinate's index, the second half of the first's; sines before
    cosines.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5, in two dimensions as He et al. 2022,
        arXiv:2111.06377, have it.
    """
    quarter = width // 4
    rates = 1.0 / WAVELENGTH ** (np.arange(quarter, dtype=np.float64) / quarter)
    parts = []
    for axis in (1, 0):
        angles = cells[:, axis, None] * rates
        parts += [np.sin(angles), np.cos(angles)]
    return np.concatenate(parts, axis=1).astype(np.float32)
