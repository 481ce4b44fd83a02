"""OTSurv: instances are carried to prototypes by optimal transport, and the prototypes pooled.

Source:
    Ren et al. 2025, arXiv:2506.20741; Y-Research-SBU/OTSurv,
    src/mil_models/model_otsurv.py.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, last_layer
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array

ENTROPY_WEIGHT = 0.1
"""Of the entropy in the transport; the authors' constant."""
RELAXATION = 1 / (1 + ENTROPY_WEIGHT)
"""Power of the prototypes' factors: how far their shares may leave equal ones."""
ROUNDS, SETTLED = 1000, 1e-10
"""Rounds at most, and the change of the factors at which they end; the authors' constants."""


class OtSurvAggregator(WholeBagAggregator):
    """Pools the prototypes that the bag's instances are carried to; any order of the bag.

    Attributes:
        rho: Share of the mass that is carried; in training it grows, in the test it is 1.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, rho: float
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `prototypes` (k, l), `linear` over them, `classifier`.
            rho: Share of the mass that is carried.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.rho = arrays, rho

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits; a plan's columns do not sum to 1, so it is no attention."""
        wide = embeddings.astype(np.float64)
        prototypes = _from_zero(self._arrays["prototypes"].astype(np.float64))
        plan = transport(distances(_from_zero(wide), prototypes), self.rho)
        carried = plan.T @ wide
        mixed = self._arrays["linear.weight"].astype(np.float64) @ carried
        if "linear.bias" in self._arrays:
            mixed = mixed + self._arrays["linear.bias"][:, None]
        return last_layer(mixed, self._arrays, "classifier"), None


def distances(rows: Float64Array, prototypes: Float64Array) -> Float64Array:
    """Return Euclidean distances as shares of the largest one, float64 (n, k).

    Args:
        rows: float64 (n, l).
        prototypes: float64 (k, l).
    """
    squares = (rows**2).sum(axis=1)[:, None] + (prototypes**2).sum(axis=1)
    found = np.sqrt(np.maximum(squares - 2 * rows @ prototypes.T, 0))
    return np.asarray(found / max(float(found.max()), np.finfo(np.float64).tiny))


def transport(cost: Float64Array, rho: float) -> Float64Array:
    """Return the transport plan over rho, without the column of what stays, float64 (n, k).

    Entropic transport by Sinkhorn's iteration: every instance gives 1 / n, the prototypes are drawn
    to equal shares of rho, and a further column takes 1 - rho. Costs are at most 1, so that the
    published absorption of factors beyond 1e8 into dual variables is never needed.

    Args:
        cost: Shares of the largest one, float64 (n, k).
        rho: Share of the mass that reaches the prototypes.
    """
    count, prototypes = cost.shape
    kernel = np.exp(np.pad(cost, ((0, 0), (0, 1))) / -ENTROPY_WEIGHT)
    shares = np.full(prototypes + 1, rho / prototypes)
    shares[-1] = 1 - rho
    column_factors = np.full(prototypes + 1, 1 / (prototypes + 1))
    row_factors = np.full(count, 1 / count)
    for _ in range(ROUNDS):
        before = column_factors
        row_factors = (1 / count) / (kernel @ column_factors)
        column_factors = shares / (kernel.T @ row_factors)
        column_factors[:-1] **= RELAXATION  # the column of what stays is held exactly
        if np.linalg.norm(column_factors - before) <= SETTLED:
            break
    plan = row_factors[:, None] * kernel[:, :-1] * column_factors[:-1]
    return np.asarray(plan / rho)


def _from_zero(rows: Float64Array) -> Float64Array:
    return np.asarray(rows - rows.min(axis=1, keepdims=True))
