"""DTFD-MIL: pseudo-bags are distilled to a few vectors, and these pooled again.

Which pseudo-bag an instance is in is given, or a pure function of its cell, so that order cannot
matter; the authors' own test shuffles the bag at every evaluation.

Source:
    Zhang et al. 2022, arXiv:2203.12081; hrzhang1123/DTFD-MIL, Main_DTFD_MIL.py. `aggregators.md`,
    4.7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays
from edge_mil.aggregators.mergeable.attention import AttentionAggregator, AttentionState
from edge_mil.errors import EmptyBagError, InvalidInstancesError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

SCORES = "class_scores"
"""Extra output of `attend.onnx`: W h of each instance, without the bias."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """How the bag is divided, and what each part gives.

    Attributes:
        distill: afs (the attention-weighted mean), maxs or maxmins (the top, or top and bottom,
            instances).
        groups: Pseudo-bags g.
        each: Instances k of a side of each pseudo-bag.
        rounds: Divisions whose probabilities are averaged.
    """

    distill: str
    groups: int
    each: int
    rounds: int


class SecondTier:
    """Gated attention over the distilled vectors, then the classifier, in float64."""

    def __init__(self, arrays: Arrays, classifier: Classifier) -> None:
        self._arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
        self._classifier = classifier

    def score(self, divisions: list[Float64Array], instances: int) -> SlideScore:
        """Return the score; logits and probabilities are means over the divisions.

        Args:
            divisions: Vectors of each division, float64 (m, l).
            instances: Number of instances of the bag.
        """
        logits = np.stack([self._logits(vectors) for vectors in divisions])
        single = self._classifier.finish(logits, [instances] * len(logits))
        chances = np.mean([s.probabilities for s in single], axis=0)[None]
        return self._classifier.finish(logits.mean(axis=0)[None], [instances], chances)[0]

    def _logits(self, vectors: Float64Array) -> Float64Array:
        branch = np.tanh(self._linear(vectors, "branch"))
        gate = 0.5 * (1 + np.tanh(0.5 * self._linear(vectors, "gate")))
        logits = self._linear(branch * gate, "attention")[:, 0]
        raised = np.exp(logits - logits.max())
        pooled = (raised / raised.sum()) @ vectors
        return self._linear(pooled[None], "classifier").ravel()

    def _linear(self, rows: Float64Array, name: str) -> Float64Array:
        product = rows @ self._arrays[f"{name}.weight"].T + self._arrays[f"{name}.bias"]
        return np.asarray(product, dtype=np.float64)


class DtfdMeanAggregator(Aggregator[AttentionState]):
    """DTFD with AFS: one softmax state for each pseudo-bag and division; an empty one gives 0."""

    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, tiers: Tiers
    ) -> None:
        """Take the weights: `branch`, `gate`, `attention` and `classifier` of the second tier."""
        self.tiers, self._tail = tiers, SecondTier(arrays, classifier)
        channels = tiers.rounds * tiers.groups
        self._pools = AttentionAggregator(channels, value_dim, classifier)

    def initial_state(self) -> AttentionState:
        """Return the state of the empty bag."""
        return self._pools.initial_state()

    def update(self, state: AttentionState, batch: InstanceBatch) -> AttentionState:
        """Return the state after also seeing `batch`."""
        if len(batch) == 0:
            return state
        check(batch, self._pools.value_dim)
        numbers = group_numbers(batch, self.tiers)
        start = self.initial_state()
        peak, mass, total = start.peak, start.mass, start.weighted_sum
        logits = batch.attention_logits[:, 0].astype(np.float64)
        values = batch.values.astype(np.float64)
        for column, number in enumerate(numbers.T):
            for group in np.unique(number).tolist():
                rows, at = number == group, column * self.tiers.groups + group
                peak[at] = logits[rows].max()
                raised = np.exp(logits[rows] - peak[at])
                mass[at], total[at] = raised.sum(), raised @ values[rows]
        return self.merge(state, AttentionState(peak, mass, total, len(batch)))

    def merge(self, left: AttentionState, right: AttentionState) -> AttentionState:
        """Return the state of the two bags taken together."""
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        peak = np.maximum(left.peak, right.peak)
        base = np.where(np.isneginf(peak), 0.0, peak)  # a group that both lack
        keep_left, keep_right = np.exp(left.peak - base), np.exp(right.peak - base)
        return AttentionState(
            peak,
            keep_left * left.mass + keep_right * right.mass,
            keep_left[:, None] * left.weighted_sum + keep_right[:, None] * right.weighted_sum,
            left.count + right.count,
        )

    def instances(self, state: AttentionState) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: AttentionState) -> SlideScore:
        """Return the slide-level score of the instances seen so far."""
        if state.count == 0:
            raise EmptyBagError
        mass = np.where(state.mass > 0, state.mass, 1.0)
        vectors = state.weighted_sum / mass[:, None]
        return self._tail.score(np.split(vectors, self.tiers.rounds), state.count)

    def scores(self, states: list[AttentionState]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one."""
        return [self.score(s) if s.count else None for s in states]

    def attention(self, state: AttentionState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the first tier's attention over the bag, (n, 1)."""
        peak, mass = state.peak[: self.tiers.groups], state.mass[: self.tiers.groups]
        highest = peak.max()
        whole = float((np.exp(peak - highest) * mass).sum())
        logits = batch.attention_logits.astype(np.float64)
        return np.asarray(np.exp(logits - highest) / whole, dtype=np.float32)

    def to_bytes(self, state: AttentionState) -> bytes:
        """Serialise a state."""
        return self._pools.to_bytes(state)

    def from_bytes(self, data: bytes) -> AttentionState:
        """Read what `to_bytes` wrote."""
        return self._pools.from_bytes(data)


def group_numbers(batch: InstanceBatch, tiers: Tiers) -> Int64Array:
    """Return each instance's pseudo-bag in each division, int64 (n, rounds).

    Raises:
        InvalidInstancesError: One is given that is not 0 to groups - 1.
    """
    instance_order = batch.instance_order
    assert instance_order is not None
    return divided(instance_order.cells, instance_order.groups, tiers)


def divided(cells: Int64Array, groups: Int64Array | None, tiers: Tiers) -> Int64Array:
    """As `group_numbers`, of cells (n, 2) and the pseudo-bags (n,) where they are given."""
    if groups is None:
        columns = [
            cell_group(cells, seed) % np.uint64(tiers.groups) for seed in range(tiers.rounds)
        ]
        return np.asarray(np.stack(columns, axis=1), dtype=np.int64)
    if len(groups) and not (groups.min() >= 0 and groups.max() < tiers.groups):
        raise InvalidInstancesError(
            f"`group` goes from {groups.min()} to {groups.max()}, and this head has the "
            f"pseudo-bags 0 to {tiers.groups - 1}."
        )
    return np.asarray(np.repeat(groups[:, None], tiers.rounds, axis=1), dtype=np.int64)


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


def check(batch: InstanceBatch, value_dim: int) -> None:
    """Check that a batch is of this head.

    Raises:
        InvalidInstancesError: It is not.
    """
    fits = batch.values.shape[1] == value_dim and batch.attention_logits.shape[1] == 1
    if not fits or batch.instance_order is None or SCORES not in batch.extra:
        raise InvalidInstancesError(
            f"Expected values of width {value_dim}, one attention logit, class scores and places; "
            "the graphs are of another bundle."
        )
