"""Pooled vectors to slide-level scores: the classifier that every pooling ends in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.dense import sigmoid, softmax_rows
from edge_mil.errors import InvalidInstancesError
from edge_mil.protocols import Network
from edge_mil.types import Float32Array, Float64Array, SlideScore


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """The last part of a model, `classify.onnx`, and what its logits mean.

    Attributes:
        classes: Names of the outputs.
        probabilities: softmax, sigmoid or none.
        network: Takes `pooled` float32 (b, k, l), gives `logits` float32 (b, c); None where the
            pooled vector already is the logits (mean and max of class logits), or the pooling
            itself is the output (`kind` pooling).
        kind: Kind of the task, as in the manifest.
        survival: How survival logits are read: nll (discrete hazards) or cox (log risk).
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
        return self.scores_of_logits(self.logits(pooled), instances)

    def scores_of_logits(
        self,
        logits: Float64Array,
        instances: Sequence[int],
        probabilities: Float64Array | None = None,
    ) -> list[SlideScore]:
        """Return the scores that bag logits mean, or pooled vectors of a head without a classifier.

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
        if self.kind == "pooling":
            rows_of_bags = zip(logits.tolist(), instances, strict=True)
            return [SlideScore((), (), (), n, pooled=tuple(row)) for row, n in rows_of_bags]
        if probabilities is None:
            probabilities = self._probabilities(logits)
        rows = zip(logits, probabilities, instances, strict=True)
        return [self._score(row, p, n) for row, p, n in rows]

    def logits(self, pooled: Float64Array) -> Float64Array:
        """Return the logits, float64 (b, c), of pooled vectors (b, k, l)."""
        if self.network is None:
            return pooled.reshape(len(pooled), -1)
        single: Float32Array = np.ascontiguousarray(pooled, dtype=np.float32)
        return self.network.run({"pooled": single})["logits"].astype(np.float64)

    def _score(
        self, logits: Float64Array, probabilities: Float64Array, instances: int
    ) -> SlideScore:
        """Return one score; regression and survival have a value of their own.

        Source:
            Discrete hazards: Zadeh and Schmid 2020, doi:10.1109/TPAMI.2020.2979450. The risk is the
            negative sum of the survival curve, as the authors of OTSurv and MambaMIL evaluate it
            (`docs/design/aggregators.md`, "OTSurv, and how survival is read").
        """
        common = (self.classes, tuple(logits.tolist()), tuple(probabilities.tolist()), instances)
        if self.kind == "regression":
            return SlideScore(*common, value=float(logits[0]))
        if self.kind == "survival" and self.survival == "cox":
            return SlideScore(*common, value=float(np.exp(logits[0])))
        if self.kind == "survival":
            hazards = sigmoid(logits)
            curve = np.cumprod(1 - hazards)
            return SlideScore(
                *common,
                value=-float(curve.sum()),
                hazards=tuple(hazards.tolist()),
                survival=tuple(curve.tolist()),
            )
        return SlideScore(*common)

    def _probabilities(self, logits: Float64Array) -> Float64Array:
        if self.probabilities == "none" or self.kind in ("regression", "survival"):
            return np.empty((len(logits), 0))
        return sigmoid(logits) if self.probabilities == "sigmoid" else softmax_rows(logits.copy())
