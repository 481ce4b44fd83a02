"""OTSurv: instances are carried to prototypes by optimal transport, and the prototypes pooled.

Source:
    Ren et al. 2025, arXiv:2506.20741; Y-Research-SBU/OTSurv, src/mil_models/model_otsurv.py;
    `aggregators.md`, 4.12.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, last_layer
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array

SHARPNESS = 0.1
"""Entropy's weight in the transport."""
POWER = 1 / (1 + SHARPNESS)
"""How far the prototypes' shares may leave their marginals: weight 1 against the entropy's."""
ROUNDS, SETTLED = 1000, 1e-10


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
            classifier: Says what the logits mean.
            arrays: `prototypes` (k, l), `linear` over them, `classifier`.
            rho: See above.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.rho = arrays, rho

    def forward(self, values: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits; a plan's columns do not sum to 1, so it is no attention."""
        prototypes = _from_zero(self._arrays["prototypes"].astype(np.float64))
        cost = distances(_from_zero(values.astype(np.float64)), prototypes)
        plan = transport(cost, self.rho)
        carried = plan.T @ values.astype(np.float64)
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
    """Return the plan, without what is carried nowhere and divided by rho, float64 (n, k).

    Entropic transport: every instance gives as much, a further column takes 1 - rho of all, and
    the prototypes are drawn to equal shares of rho. Costs are at most 1, so that the published
    absorption of factors beyond 1e8 into dual variables is never reached.

    Args:
        cost: Shares of the largest one, float64 (n, k).
        rho: Share of the mass that reaches the prototypes.
    """
    count, prototypes = cost.shape
    kernel = np.exp(np.pad(cost, ((0, 0), (0, 1))) / -SHARPNESS)
    shares = np.full(prototypes + 1, rho / prototypes)
    shares[-1] = 1 - rho
    b = np.full(prototypes + 1, 1 / (prototypes + 1))
    a = np.full(count, 1 / count)
    for _ in range(ROUNDS):
        before = b
        a = (1 / count) / (kernel @ b)
        b = shares / (kernel.T @ a)
        b[:-1] **= POWER
        if np.linalg.norm(b - before) <= SETTLED:
            break
    plan = a[:, None] * kernel[:, :-1] * b[:-1]
    return np.asarray(plan / rho)


def _from_zero(rows: Float64Array) -> Float64Array:
    return np.asarray(rows - rows.min(axis=1, keepdims=True))
