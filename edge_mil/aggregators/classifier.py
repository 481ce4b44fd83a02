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
        survival: How survival logits are read: nll (discrete hazards) or cox (log risk).

    Source:
        Hazards, survival curve and risk: `aggregators.md`, 4.12, after Zadeh and Schmid 2020.
    """

    classes: tuple[str, ...]
    probabilities: str
    network: Network | None
    kind: str = "classification"
    survival: str = "nll"

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
                for row, n in zip(self.logits(pooled), instances, strict=True)
            ]
        return self.finish(self.logits(pooled), instances)

    def finish(
        self,
        logits: Float64Array,
        instances: Sequence[int],
        probabilities: Float64Array | None = None,
    ) -> list[SlideScore]:
        """Return the scores that logits mean.

        Args:
            logits: Bag logits, float64 (b, c).
            instances: Number of instances of each bag.
            probabilities: float64 (b, c), where they are not those of the logits.

        Raises:
            InvalidInstancesError: A logit is not finite.
        """
        if not np.isfinite(logits).all():
            raise InvalidInstancesError(
                "The classifier gave a logit that is not finite; look for very large features."
            )
        chances = self._chances(logits) if probabilities is None else probabilities
        return [
            self._score(row, p, n) for row, p, n in zip(logits, chances, instances, strict=True)
        ]

    def _score(self, logits: Float64Array, chances: Float64Array, instances: int) -> SlideScore:
        named = (self.classes, tuple(logits.tolist()), tuple(chances.tolist()), instances)
        if self.kind == "regression":
            return SlideScore(*named, value=float(logits[0]))
        if self.kind == "survival" and self.survival == "cox":
            return SlideScore(*named, value=float(np.exp(logits[0])))
        if self.kind == "survival":
            hazards = _sigmoid(logits)
            curve = np.cumprod(1 - hazards)
            return SlideScore(
                *named,
                value=-float(curve.sum()),
                hazards=tuple(hazards.tolist()),
                survival=tuple(curve.tolist()),
            )
        return SlideScore(*named)

    def logits(self, pooled: Float64Array) -> Float64Array:
        """Return the logits, float64 (b, c), of pooled vectors (b, k, l)."""
        if self.network is None:
            return pooled.reshape(len(pooled), -1)
        single: Float32Array = np.ascontiguousarray(pooled, dtype=np.float32)
        return self.network.run({"pooled": single})["logits"].astype(np.float64)

    def _chances(self, logits: Float64Array) -> Float64Array:
        if self.probabilities == "none" or self.kind in ("regression", "survival"):
            return np.empty((len(logits), 0))
        if self.probabilities == "sigmoid":
            return _sigmoid(logits)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)


def _sigmoid(logits: Float64Array) -> Float64Array:
    # tanh saturates where exp(-logit) would overflow.
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)
