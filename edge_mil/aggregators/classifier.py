"""From pooled vectors to slide scores: the head that every pooling ends in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.errors import InvalidInstancesError
from edge_mil.protocols import Network
from edge_mil.types import Float32Array, Float64Array, SlideScore


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """The head of a model, `classify.onnx`, and what its logits mean.

    Attributes:
        classes: Names of the outputs.
        probabilities: softmax, sigmoid or none.
        network: Takes `pooled` float32 (b, k, l), gives `logits` float32 (b, c); None where the
            pooled vector already is the logits (mean and max of class logits), or the pooling
            itself is the output (`kind` pooling).
        kind: Kind of the task, as the manifest says it.
    """

    classes: tuple[str, ...]
    probabilities: str
    network: Network | None
    kind: str = "classification"

    def scores(self, pooled: Float64Array, instances: Sequence[int]) -> list[SlideScore]:
        """Return the score of each bag.

        Args:
            pooled: Pooled vectors, float64, shape (b, k, l).
            instances: Number of instances of each bag.

        Raises:
            InvalidInstancesError: A logit is not finite.
        """
        if self.kind == "pooling":
            return [
                SlideScore((), (), (), n, pooled=tuple(row.ravel().tolist()))
                for row, n in zip(pooled, instances, strict=True)
            ]
        logits = self.logits(pooled)
        if not np.isfinite(logits).all():
            raise InvalidInstancesError(
                "The classifier gave a logit that is not finite; look for very large features."
            )
        chances = self._chances(logits)
        return [
            SlideScore(self.classes, tuple(row.tolist()), tuple(p.tolist()), n)
            for row, p, n in zip(logits, chances, instances, strict=True)
        ]

    def logits(self, pooled: Float64Array) -> Float64Array:
        """Return the logits, float64 (b, c), of pooled vectors (b, k, l)."""
        if self.network is None:
            return pooled.reshape(len(pooled), -1)
        single: Float32Array = np.ascontiguousarray(pooled, dtype=np.float32)
        return self.network.run({"pooled": single})["logits"].astype(np.float64)

    def _chances(self, logits: Float64Array) -> Float64Array:
        if self.probabilities == "none":
            return np.empty((len(logits), 0))
        if self.probabilities == "sigmoid":
            # tanh saturates where exp(-logit) would overflow.
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)
