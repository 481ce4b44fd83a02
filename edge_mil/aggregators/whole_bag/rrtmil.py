"""RRT-MIL: attention within regions of a grid, attention across regions, then attention pooling.

Source:
    Tang et al. 2024, arXiv:2402.17228 (R-MSA with EPEG, CR-MSA); DearCaat/RRT-MIL, modules/rrt.py
    and modules/rmsa.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array, Int64Array

CROSS_REGIONS = 8
"""Regions per side of the second stage, whatever region_num is, as in the official code."""
EPSILON = np.float32(1e-8)
"""Added to a range before something is divided by it."""
FLAT = np.float32(1e-5)
"""Share of the largest number below which a range is rounding: dividing by it would make noise of
regions whose instances are all alike, which the formula gives nothing."""
BLOCK = 1 << 22
"""Numbers of an attention matrix that are held at once, 16 MB."""


@dataclass(frozen=True, slots=True)
class RrtSettings:
    """The settings that the arrays do not tell.

    Attributes:
        regions: Regions per side of the first stage (region_num).
        layers: Layers of the first stage.
        cross_heads: Heads of the attention across regions.
        all_shortcut: Whether the embeddings are added again in the end.
        attention_activation: Of the pooling: relu, gelu or tanh.
    """

    regions: int
    layers: int
    cross_heads: int
    all_shortcut: bool
    attention_activation: str


class RrtMilAggregator(WholeBagAggregator):
    """Instances fill a square grid row by row, and attend the others of their region."""

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, settings: RrtSettings
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `layers`.i and `cross` with their norm, qkv and proj, `norm`, `pool` and
                `predictor`.
            settings: What the arrays do not tell.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self._settings = arrays, settings

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and the pooling's attention, (n, k)."""
        arrays, settings, h = self._arrays, self._settings, embeddings
        for number in range(settings.layers):
            at = f"layers.{number}"
            h = h + self._within_regions(layer_norm(h, arrays, f"{at}.norm"), at)
        h = h + self._across_regions(layer_norm(h, arrays, "cross.norm"))
        if settings.all_shortcut:
            h = h + embeddings
        h = layer_norm(h, arrays, "norm")
        weights = attention_weights(self._pooling_logits(h))
        pooled = weights.T @ h.astype(np.float64)
        return last_layer(pooled, arrays, "predictor"), weights.astype(np.float32)

    def _within_regions(self, x: Float32Array, at: str) -> Float32Array:
        """Return R-MSA: attention among the instances of each region, float32 (n, l)."""
        arrays = self._arrays
        kernels = arrays[f"{at}.pe"]
        grid, regions = _regions(x, self._settings.regions)
        out = np.empty_like(grid)
        for rows in regions:
            mixed = _attend(linear(grid[rows], arrays, f"{at}.qkv"), len(kernels), kernels)
            out[rows] = linear(mixed, arrays, f"{at}.proj")
        return out[: len(x)]

    def _across_regions(self, x: Float32Array) -> Float32Array:
        """Return CR-MSA: what attention across the regions gives each instance, float32 (n, l)."""
        arrays = self._arrays
        grid, regions = _regions(x, CROSS_REGIONS)
        # 1. Each landmark of a region is a softmax-weighted mean of the region's positions.
        logits = self._landmark_logits(grid)[regions]  # (regions, positions, landmarks)
        combine = softmax_rows(logits.transpose(0, 2, 1).copy())
        tokens = np.stack(
            [weights @ grid[rows] for weights, rows in zip(combine, regions, strict=True)]
        )
        # 2. The regions attend each other, each landmark by itself.
        for landmark in range(tokens.shape[1]):
            projected = linear(tokens[:, landmark], arrays, "cross.qkv")
            mixed = _attend(projected, self._settings.cross_heads, None)
            tokens[:, landmark] = linear(mixed, arrays, "cross.proj")
        # 3. The landmarks are given back to the positions: by the softmax over landmarks, times the
        #    logits scaled to 0 to 1 within the region.
        low, high = logits.min(axis=1, keepdims=True), logits.max(axis=1, keepdims=True)
        shares = (logits - low) / (high - low + EPSILON)
        shares *= high - low > FLAT * np.maximum(np.abs(low), np.abs(high))
        shares *= softmax_rows(logits)
        out = np.empty_like(grid)
        for share, rows, token in zip(shares, regions, tokens, strict=True):
            out[rows] = share @ token
        return out[: len(x)]

    def _landmark_logits(self, x: Float32Array) -> Float32Array:
        """Return phi of rows: a linear layer, or two with a tanh between."""
        if "cross.phi.weight" in self._arrays:
            return linear(x, self._arrays, "cross.phi")
        hidden = np.tanh(linear(x, self._arrays, "cross.phi.0"))
        return linear(hidden, self._arrays, "cross.phi.2")

    def _pooling_logits(self, h: Float32Array) -> Float32Array:
        arrays = self._arrays
        hidden = activate(linear(h, arrays, "pool.branch"), self._settings.attention_activation)
        if "pool.gate.weight" in arrays:
            hidden *= sigmoid(linear(h, arrays, "pool.gate"))
        return linear(hidden, arrays, "pool.last")


def _regions(x: Float32Array, per_side: int) -> tuple[Float32Array, Int64Array]:
    """Return the grid's rows, with zeros behind the instances, and the rows of each region.

    Args:
        x: float32 (n, l).
        per_side: Regions per side; the grid's side is the next multiple of it.

    Returns:
        float32 (side * side, l), and row numbers, int64 (regions, positions).
    """
    side = -(-(math.isqrt(len(x) - 1) + 1) // per_side) * per_side
    grid = np.zeros((side * side, x.shape[1]), dtype=np.float32)
    grid[: len(x)] = x
    each = side // per_side
    rows = np.arange(side * side, dtype=np.int64).reshape(per_side, each, per_side, each)
    return grid, rows.transpose(0, 2, 1, 3).reshape(per_side * per_side, each * each)


def _attend(projected: Float32Array, heads: int, kernels: Float32Array | None) -> Float32Array:
    """Return multi-head attention among rows, float32 (p, l), heads side by side.

    EPEG adds to the logits their own convolution along the queries. Since logits are linear in
    the queries, that is the same as adding it to the queries; its bias moves a whole row of
    logits, which a softmax takes off again.

    Args:
        projected: Queries, keys and values, float32 (p, 3 l).
        heads: How many.
        kernels: EPEG's, float32 (heads, taps), odd; None without.
    """
    count, inner = len(projected), projected.shape[1] // 3
    each = inner // heads
    out = np.empty((count, inner), dtype=np.float32)
    block = max(BLOCK // count, 1)
    for head in range(heads):
        query, key, value = (
            projected[:, part * inner + head * each : part * inner + (head + 1) * each]
            for part in range(3)
        )
        query = query * np.float32(each**-0.5)
        if kernels is not None:
            query = _with_neighbours(query, kernels[head])
        column = out[:, head * each : (head + 1) * each]
        for at in range(0, count, block):
            column[at : at + block] = softmax_rows(query[at : at + block] @ key.T) @ value
    return out


def _with_neighbours(query: Float32Array, kernel: Float32Array) -> Float32Array:
    """Return queries plus their convolution along the rows, with zeros around them."""
    half = len(kernel) // 2
    around = np.zeros((len(query) + 2 * half, query.shape[1]), dtype=np.float32)
    around[half : half + len(query)] = query
    out: Float32Array = query.copy()
    for tap, weight in enumerate(kernel):
        out += weight * around[tap : tap + len(query)]
    return out
