"""Compare two extractors by their slide scores and by their features, centred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Float64Array

SMALLEST = 1e-12
"""Keeps a division away from 0."""
MIN_RANKED = 3
"""Instances of the smallest bag in which ranks can correlate."""


class BagScorer(Protocol):
    """A head that scores whole bags of features."""

    def score(self, features: Float32Array) -> Float64Array:
        """Return the score (c,) of a bag (n, d): probabilities where the head has them."""

    def attention_logits(self, features: Float32Array) -> Float32Array | None:
        """Return attention logits (n, k) of a bag (n, d); None without attention."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of one extractor's features with another's, over some bags.

    Attributes:
        raw_cosine_min: Smallest cosine of a tile's two features.
        raw_cosine_median: Its median.
        centred_cosine_min: The same after the mean feature of the reference is taken off both:
            raw cosines hide what differs (0.9995 raw was 0.984 centred).
        centred_cosine_median: Its median.
        attention_rank_correlation: Spearman's, mean over bags and channels; None without attention.
        score_difference_mean: Largest difference of a bag's score over classes, mean over bags.
        score_difference_max: Its maximum over bags.
        score_differences: It, for each bag.
        class_flips: Bags whose class (or side of 0.5) changes.
    """

    raw_cosine_min: float
    raw_cosine_median: float
    centred_cosine_min: float
    centred_cosine_median: float
    attention_rank_correlation: float | None
    score_difference_mean: float
    score_difference_max: float
    score_differences: tuple[float, ...]
    class_flips: int


def compare(
    reference: Sequence[Float32Array], other: Sequence[Float32Array], scorer: BagScorer
) -> Agreement:
    """Compare the features of some bags with a reference's.

    Args:
        reference: Features (n, d) of each bag.
        other: Features of the same tiles by the other extractor.
        scorer: The head that the bundle will hold.
    """
    # Features: cosines of each tile, as they are and with the reference's mean taken off.
    first, second = np.concatenate(reference), np.concatenate(other)
    centre = first.mean(axis=0, dtype=np.float64)
    raw, centred = _cosines(first, second), _cosines(first - centre, second - centre)
    # Scores and attention: of each bag.
    first_scores = [scorer.score(bag) for bag in reference]
    second_scores = [scorer.score(bag) for bag in other]
    moved = [float(np.abs(a - b).max()) for a, b in zip(first_scores, second_scores, strict=True)]
    correlations = [_rank_correlation(a, b, scorer) for a, b in zip(reference, other, strict=True)]
    known = [correlation for correlation in correlations if correlation is not None]
    return Agreement(
        raw_cosine_min=float(raw.min()),
        raw_cosine_median=float(np.median(raw)),
        centred_cosine_min=float(centred.min()),
        centred_cosine_median=float(np.median(centred)),
        attention_rank_correlation=float(np.mean(known)) if known else None,
        score_difference_mean=float(np.mean(moved)),
        score_difference_max=float(np.max(moved)),
        score_differences=tuple(moved),
        class_flips=sum(
            _class(a) != _class(b) for a, b in zip(first_scores, second_scores, strict=True)
        ),
    )


def centred_error(reference: Float32Array, other: Float32Array) -> float:
    """Return the squared error of features, as a share of the reference's variance."""
    centred = reference - reference.mean(axis=0)
    return float(((other - reference) ** 2).sum() / max(float((centred**2).sum()), SMALLEST))


def _cosines(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Float64Array:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    product = (left.astype(np.float64) * right).sum(axis=1)
    # Two features that are both the mean feature agree.
    cosines: Float64Array = np.where(
        lengths > SMALLEST, product / np.maximum(lengths, SMALLEST), 1.0
    )
    return cosines


def _class(score: Float64Array) -> int:
    return int(score[0] >= 0.5) if len(score) == 1 else int(score.argmax())


def _rank_correlation(left: Float32Array, right: Float32Array, scorer: BagScorer) -> float | None:
    """Return Spearman's correlation of the attention of one bag, mean over channels."""
    first, second = scorer.attention_logits(left), scorer.attention_logits(right)
    if first is None or second is None or len(left) < MIN_RANKED:
        return None
    found = []
    for a, b in zip(first.T, second.T, strict=True):
        ranks = [values.argsort().argsort().astype(np.float64) for values in (a, b)]
        x, y = (r - r.mean() for r in ranks)
        found.append(float((x * y).sum() / (x**2).sum()))
    return float(np.mean(found))
