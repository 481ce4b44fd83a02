"""The outputs of a head for the bag without each of its fields, or of its cells.

Nothing is subtracted: when a dominant part is taken off, no correct digit is left. The bag without
a part is the sum of what lies before it and of what lies behind it. For attention pooling these
sums are running sums of arrays (`AttentionParts`); any other mergeable head folds its states one by
one (`all_but_each`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeGuard

import numpy as np

from edge_mil.aggregators import AttentionAggregator, AttentionState
from edge_mil.types import Float64Array, InstanceBatch, SlideScore

CHUNK = 4096
"""States that are scored in one run of the classifier: bounds the memory."""
SMALLEST_MASS = 1e-200
"""Sums of weights below this have lost digits to underflow: such a bag is folded by itself."""


def all_but_each(aggregator: Any, states: Sequence[Any]) -> list[Any]:
    """Return for each state the fold of all the others: one pass forth, one back."""
    after = [aggregator.initial_state()]
    for state in reversed(states):
        after.append(aggregator.merge(state, after[-1]))
    after.reverse()
    before, rest = aggregator.initial_state(), []
    for i, state in enumerate(states):
        rest.append(aggregator.merge(before, after[i + 1]))
        before = aggregator.merge(before, state)
    return rest


def fold(aggregator: Any, states: Iterable[Any]) -> Any:
    """Return the state of all bags taken together."""
    return reduce(aggregator.merge, states, aggregator.initial_state())


def outputs_of(score: SlideScore) -> tuple[float, ...]:
    """Return the head's outputs; a pooling without a classifier has no logits."""
    return score.logits or score.pooled


def outputs_of_states(aggregator: Any, states: Sequence[Any], width: int) -> Float64Array:
    """Return the outputs of each state, float64 (n, width); NaN where there is no score."""
    found: Float64Array = np.full((len(states), width), np.nan)
    for at in range(0, len(states), CHUNK):
        scores = aggregator.scores(list(states[at : at + CHUNK]))
        for i, score in enumerate(scores, start=at):
            if score is not None:
                found[i] = outputs_of(score)
    return found


def has_attention_parts(aggregator: Any) -> TypeGuard[AttentionAggregator]:
    """Return whether `AttentionParts` speaks for a head: its own children pool otherwise."""
    return type(aggregator) is AttentionAggregator


@dataclass(frozen=True, slots=True, eq=False)
class AttentionParts:
    """Parts of a bag under attention pooling: fields, or cells.

    Attributes:
        mass: Sum of exp(logit - peak) of each part, float64 (n, k).
        weighted_sum: Sum of exp(logit - peak) * embedding, float64 (n, k, l).
    """

    mass: Float64Array
    weighted_sum: Float64Array

    @staticmethod
    def of_states(states: Sequence[AttentionState], peak: Float64Array) -> AttentionParts:
        """Return fields as parts of a bag whose largest attention logits are `peak`, (k,)."""
        scale = np.exp(np.stack([state.peak for state in states]) - peak)
        mass = scale * np.stack([state.mass for state in states])
        sums = np.stack([state.weighted_sum for state in states])
        return AttentionParts(mass, scale[:, :, None] * sums)

    @staticmethod
    def of_instances(batch: InstanceBatch, peak: Float64Array) -> AttentionParts:
        """Return instances as parts of a bag whose largest attention logits are `peak`, (k,)."""
        mass = np.exp(batch.attention_logits.astype(np.float64) - peak)
        return AttentionParts(mass, mass[:, :, None] * batch.embeddings.astype(np.float64)[:, None])

    @staticmethod
    def joined(parts: Iterable[AttentionParts]) -> AttentionParts:
        """Return the parts of several one after the other."""
        every = list(parts)
        return AttentionParts(
            np.concatenate([part.mass for part in every]),
            np.concatenate([part.weighted_sum for part in every]),
        )

    def total(self) -> AttentionParts:
        """Return all parts as one, (1, k) and (1, k, l)."""
        return AttentionParts(
            self.mass.sum(axis=0, keepdims=True), self.weighted_sum.sum(axis=0, keepdims=True)
        )

    def without_each(self) -> AttentionParts:
        """Return for each part the sum of the others, without a subtraction."""
        return AttentionParts(_all_but_each(self.mass), _all_but_each(self.weighted_sum))

    def plus(self, other: AttentionParts) -> AttentionParts:
        """Return each part together with another one."""
        return AttentionParts(self.mass + other.mass, self.weighted_sum + other.weighted_sum)

    def take(self, at: slice) -> AttentionParts:
        """Return some of the parts."""
        return AttentionParts(self.mass[at], self.weighted_sum[at])

    def outputs(
        self, aggregator: AttentionAggregator, counts: Sequence[int], width: int
    ) -> Float64Array:
        """Return the head's outputs for each part as a bag of its own, float64 (n, width).

        Args:
            aggregator: The head.
            counts: Instances of each part.
            width: Number of the head's outputs.

        Returns:
            NaN where there is no instance, and where underflow took the digits.
        """
        known = (np.asarray(counts) >= aggregator.smallest) & (self.mass > SMALLEST_MASS).all(
            axis=1
        )
        pooled = self.weighted_sum[known] / self.mass[known][:, :, None]
        chunks = [
            aggregator.classifier.logits(pooled[at : at + CHUNK])
            for at in range(0, len(pooled), CHUNK)
        ]
        found: Float64Array = np.full((len(known), width), np.nan)
        if chunks:
            found[known] = np.concatenate(chunks)
        return found


def _all_but_each(values: Float64Array) -> Float64Array:
    before, after = np.zeros_like(values), np.zeros_like(values)
    np.cumsum(values[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumsum(values[:0:-1], axis=0)[::-1]
    return np.asarray(before + after)
