"""Attention pooling that never needs the whole bag at once: an online softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import check_batch
from edge_mil.aggregators.pooled import PooledAggregator
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.types import Float32Array, Float64Array, InstanceBatch


@dataclass(frozen=True, slots=True, eq=False)
class AttentionState:
    """The sums of attention pooling; exp(-peak) keeps them in range.

    Attributes:
        peak: Largest attention logit of each channel, (k,) float64; -inf where it is empty.
        mass: Sum of exp(logit - peak), (k,) float64.
        weighted_sum: Sum of exp(logit - peak) * embedding, (k, l) float64.
        count: Number of instances seen.
    """

    peak: Float64Array
    mass: Float64Array
    weighted_sum: Float64Array
    count: int


class AttentionAggregator(PooledAggregator[AttentionState]):
    """Softmax-attention pooling in k channels, followed by a classifier.

    Attributes:
        channels: Attention channels k: 1, or one for each branch or class.
        value_dim: Width l of what a channel sums.
        classifier: From pooled (k, l) to the score.

    Source:
        Pooling: Ilse, Tomczak and Welling 2018, arXiv:1802.04712, eq. 7 to 9.
        Merging: Milakov and Gimelshein 2018, arXiv:1805.02867, section 3.1.
        Logits are widened to float64 before the peak is taken off: in float32 the difference
        alone costs 1e-10 over 50 000 instances (`docs/design/aggregators.md`, "Why float64, and why
        logits are widened first").
    """

    def __init__(self, channels: int, value_dim: int, classifier: Classifier) -> None:
        self.channels, self.value_dim, self.classifier = channels, value_dim, classifier

    @property
    def expected_width(self) -> int:
        """Width of the embeddings of a batch."""
        return self.value_dim

    def weighted_sum(self, unnormalised: Float64Array, batch: InstanceBatch) -> Float64Array:
        """Return each channel's weighted sum of the embeddings, float64 (k, l).

        Args:
            unnormalised: Weights exp(logit - peak), float64 (n, k).
            batch: The instances.
        """
        return np.asarray(unnormalised.T @ batch.embeddings.astype(np.float64))

    def initial_state(self) -> AttentionState:
        k = self.channels
        return AttentionState(np.full(k, -np.inf), np.zeros(k), np.zeros((k, self.value_dim)), 0)

    def update(self, state: AttentionState, batch: InstanceBatch) -> AttentionState:
        check_batch(batch, self.expected_width, channels=self.channels)
        if len(batch) == 0:
            return state
        logits = batch.attention_logits.astype(np.float64)
        peak = logits.max(axis=0)
        unnormalised = np.exp(logits - peak)
        mass, total = unnormalised.sum(axis=0), self.weighted_sum(unnormalised, batch)
        return self.merge(state, AttentionState(peak, mass, total, len(batch)))

    def merge(self, left: AttentionState, right: AttentionState) -> AttentionState:
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        peak = np.maximum(left.peak, right.peak)
        # In a channel that is empty on both sides -inf - -inf would be NaN.
        base = np.where(np.isneginf(peak), 0.0, peak)
        keep_left, keep_right = np.exp(left.peak - base), np.exp(right.peak - base)
        return AttentionState(
            peak,
            keep_left * left.mass + keep_right * right.mass,
            keep_left[:, None] * left.weighted_sum + keep_right[:, None] * right.weighted_sum,
            left.count + right.count,
        )

    def pooled(self, state: AttentionState) -> Float64Array:
        """Return the attention-weighted mean of each channel, float64 (k, l)."""
        return np.asarray(state.weighted_sum / state.mass[:, None], dtype=np.float64)

    def attention(self, state: AttentionState, batch: InstanceBatch) -> Float32Array | None:
        logits = batch.attention_logits.astype(np.float64)
        return np.asarray(np.exp(logits - state.peak) / state.mass, dtype=np.float32)

    def to_bytes(self, state: AttentionState) -> bytes:
        return to_bytes(
            np.concatenate([[state.count], state.peak, state.mass, state.weighted_sum.ravel()])
        )

    def from_bytes(self, data: bytes) -> AttentionState:
        k, width = self.channels, self.value_dim
        numbers = from_bytes(data, 1 + 2 * k + k * width)
        return AttentionState(
            numbers[1 : 1 + k],
            numbers[1 + k : 1 + 2 * k],
            numbers[1 + 2 * k :].reshape(k, width),
            int(numbers[0]),
        )


def bag_attention(peak: Float64Array, mass: Float64Array, batch: InstanceBatch) -> Float32Array:
    """Return each instance's share of one attention over a bag that is held in parts.

    Args:
        peak: Largest logit of each part, float64 (p,); -inf where it is empty.
        mass: Sum of exp(logit - peak) of each part.
        batch: Instances of the bag, with one attention logit each.

    Returns:
        float32 (n, 1).
    """
    highest = peak.max()
    whole = float((np.exp(peak - highest) * mass).sum())
    logits = batch.attention_logits.astype(np.float64)
    return np.asarray(np.exp(logits - highest) / whole, dtype=np.float32)
