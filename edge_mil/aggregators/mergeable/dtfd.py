"""DTFD-MIL: pseudo-bags are distilled to a few vectors, and these are pooled again.

The pseudo-bag of an instance is given, or a pure function of its cell, so that order cannot matter;
the authors' own test shuffles the bag at every evaluation.

Source:
    Zhang et al. 2022, arXiv:2203.12081; hrzhang1123/DTFD-MIL, Main_DTFD_MIL.py. What is
    kept of a bag, and why that is exact: `docs/design/aggregators.md`, "DTFD-MIL".
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import CountedAggregator, CountedState, check_batch
from edge_mil.aggregators.dense import Arrays, linear, sigmoid
from edge_mil.aggregators.mergeable.attention import (
    AttentionAggregator,
    AttentionState,
    bag_attention,
)
from edge_mil.errors import InvalidInstancesError
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

CLASS_SCORES = "class_scores"
"""Extra output of `attend.onnx`: W h of each instance, without the bias."""


@dataclass(frozen=True, slots=True)
class PseudoBags:
    """How the bag is divided, and what each pseudo-bag gives to the second tier.

    Attributes:
        distill: afs (the attention-weighted mean), maxs or maxmins (the top, or top and bottom,
            instances).
        groups: Pseudo-bags g.
        each: Instances k of a side of each pseudo-bag.
        rounds: Divisions whose probabilities are averaged.
        normalised: Whether a softmax makes weights of attention logits, in both tiers; False: the
            logits are the weights.
        keeps_empty: Whether an empty pseudo-bag is a vector of zeros under afs; False: it is left
            out.
    """

    distill: str
    groups: int
    each: int
    rounds: int
    normalised: bool = True
    keeps_empty: bool = True


class SecondTier:
    """Attention over the distilled vectors, with or without a gate, then the classifier."""

    def __init__(self, arrays: Arrays, classifier: Classifier, *, normalised: bool = True) -> None:
        """Take the weights, which are used in float64.

        Args:
            arrays: `branch`, perhaps `gate`, `attention` and `classifier`.
            classifier: Says what the logits mean.
            normalised: Whether a softmax makes weights of the attention logits.
        """
        self._arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
        self._classifier, self._normalised = classifier, normalised

    def score(self, divisions: list[Float64Array], instances: int) -> SlideScore:
        """Return the score; logits and probabilities are means over the divisions.

        Args:
            divisions: Vectors of each division, float64 (m, l).
            instances: Number of instances of the bag.
        """
        logits = np.stack([self._logits(vectors) for vectors in divisions])
        each = self._classifier.scores_of_logits(logits, [instances] * len(logits))
        probabilities = np.mean([score.probabilities for score in each], axis=0)[None]
        mean = logits.mean(axis=0)[None]
        return self._classifier.scores_of_logits(mean, [instances], probabilities)[0]

    def _logits(self, vectors: Float64Array) -> Float64Array:
        hidden = np.tanh(linear(vectors, self._arrays, "branch"))
        if "gate.weight" in self._arrays:
            hidden = hidden * sigmoid(linear(vectors, self._arrays, "gate"))
        weights = linear(hidden, self._arrays, "attention")[:, 0]
        if self._normalised:
            unnormalised = np.exp(weights - weights.max())
            weights = unnormalised / unnormalised.sum()
        pooled = weights @ vectors
        return linear(pooled[None], self._arrays, "classifier").ravel()


class DtfdMeanAggregator(AttentionAggregator):
    """DTFD with AFS: each pseudo-bag of each division is a channel."""

    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, pseudo_bags: PseudoBags
    ) -> None:
        """Take the weights: `branch`, `gate`, `attention` and `classifier` of the second tier."""
        super().__init__(pseudo_bags.rounds * pseudo_bags.groups, value_dim, classifier)
        self.pseudo_bags, self._second = pseudo_bags, SecondTier(arrays, classifier)

    def update(self, state: AttentionState, batch: InstanceBatch) -> AttentionState:
        check_batch(batch, self.value_dim, channels=1, ordered=True)
        if len(batch) == 0:
            return state
        new = self.initial_state()
        logits = batch.attention_logits[:, 0].astype(np.float64)
        embeddings = batch.embeddings.astype(np.float64)
        for division, groups in enumerate(group_numbers(batch, self.pseudo_bags).T):
            for group in np.unique(groups).tolist():
                rows, channel = groups == group, division * self.pseudo_bags.groups + group
                new.peak[channel] = logits[rows].max()
                unnormalised = np.exp(logits[rows] - new.peak[channel])
                new.mass[channel] = unnormalised.sum()
                new.weighted_sum[channel] = unnormalised @ embeddings[rows]
        seen = AttentionState(new.peak, new.mass, new.weighted_sum, len(batch))
        return self.merge(state, seen)

    def score_all(self, states: list[AttentionState]) -> list[SlideScore]:
        return [self._score(state) for state in states]

    def _score(self, state: AttentionState) -> SlideScore:
        mass = np.where(state.mass > 0, state.mass, 1.0)
        vectors = state.weighted_sum / mass[:, None]
        divisions = np.split(vectors, self.pseudo_bags.rounds)
        if not self.pseudo_bags.keeps_empty:
            held = np.split(state.mass > 0, self.pseudo_bags.rounds)
            divisions = [rows[full] for rows, full in zip(divisions, held, strict=True)]
        return self._second.score(divisions, state.count)

    def attention(self, state: AttentionState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the first tier's attention over the bag, (n, 1)."""
        first = slice(0, self.pseudo_bags.groups)  # a division holds every instance once
        return bag_attention(state.peak[first], state.mass[first], batch)


class SelectingAggregator(CountedAggregator[CountedState]):
    """DTFD with MaxS or MaxMinS: k instances of each side of each pseudo-bag go on."""

    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, pseudo_bags: PseudoBags
    ) -> None:
        """Take the weights: `branch`, `gate`, `attention` and `classifier` of the second tier."""
        self.pseudo_bags, self.value_dim = pseudo_bags, value_dim
        self.classes = len(classifier.classes)
        self._second = SecondTier(arrays, classifier, normalised=pseudo_bags.normalised)
        # Ranks are negated at the bottom side.
        self.signs = (1.0,) if pseudo_bags.distill == "maxs" else (1.0, -1.0)

    @abstractmethod
    def selected(self, state: CountedState) -> tuple[Int64Array, Float32Array]:
        """Return the slot (m,) and the embedding (m, l) of each instance that goes on."""

    def slots(self, numbers: Int64Array) -> Int64Array:
        """Return division * groups + pseudo-bag, division by division, of `group_numbers`."""
        groups, rounds = self.pseudo_bags.groups, self.pseudo_bags.rounds
        return np.asarray((numbers + groups * np.arange(rounds)).T.ravel(), dtype=np.int64)

    def score_all(self, states: list[CountedState]) -> list[SlideScore]:
        return [self._score(state) for state in states]

    def _score(self, state: CountedState) -> SlideScore:
        slots, embeddings = self.selected(state)
        vectors, division = embeddings.astype(np.float64), slots // self.pseudo_bags.groups
        divisions = [vectors[division == number] for number in range(self.pseudo_bags.rounds)]
        return self._second.score(divisions, state.count)


def check_dtfd_batch(batch: InstanceBatch, value_dim: int, classes: int) -> None:
    """Check that a batch is of a DTFD head.

    Raises:
        InvalidInstancesError: It is not.
    """
    check_batch(batch, value_dim, channels=1, ordered=True, extra={CLASS_SCORES: classes})


def group_numbers(batch: InstanceBatch, pseudo_bags: PseudoBags) -> Int64Array:
    """Return each instance's pseudo-bag in each division, int64 (n, rounds).

    Raises:
        InvalidInstancesError: One is given that is not 0 to groups - 1.
    """
    assert batch.instance_order is not None
    return divide(batch.instance_order.cells, batch.instance_order.groups, pseudo_bags)


def divide(cells: Int64Array, groups: Int64Array | None, pseudo_bags: PseudoBags) -> Int64Array:
    """Return pseudo-bags as `group_numbers` does, of cells (n, 2), or as they are given (n,)."""
    if groups is None:
        columns = [
            cell_group(cells, seed) % np.uint64(pseudo_bags.groups)
            for seed in range(pseudo_bags.rounds)
        ]
        return np.asarray(np.stack(columns, axis=1), dtype=np.int64)
    if len(groups) and not (groups.min() >= 0 and groups.max() < pseudo_bags.groups):
        raise InvalidInstancesError(
            f"`group` goes from {groups.min()} to {groups.max()}, and this head has the "
            f"pseudo-bags 0 to {pseudo_bags.groups - 1}."
        )
    return np.asarray(np.repeat(groups[:, None], pseudo_bags.rounds, axis=1), dtype=np.int64)


def cell_group(cells: Int64Array, seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return splitmix64(seed, x, y) of cells (n, 2), uint64 (n,).

    Source:
        Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
    """
    mixed = np.full(len(cells), seed, dtype=np.uint64)
    for column in cells.astype(np.uint64).T:
        mixed = (mixed ^ column) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed
