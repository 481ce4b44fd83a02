"""Attention pooling of the instances and of a few tokens that attend the whole bag (MHIM-MIL).

Source:
    Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py, `forward_test` with
    `merge_test`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import check_batch
from edge_mil.aggregators.dense import Arrays, activate, linear, sigmoid
from edge_mil.aggregators.mergeable.attention import AttentionAggregator, AttentionState
from edge_mil.aggregators.mergeable.multihead import MultiheadAggregator
from edge_mil.aggregators.pooled import PooledAggregator
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.types import Float32Array, Float64Array, InstanceBatch

TOKEN_VALUES, TOKEN_LOGITS = "token_values", "token_logits"
"""Extra outputs of `attend.onnx`: what the tokens' heads pool, and their attention logits."""


@dataclass(frozen=True, slots=True, eq=False)
class MergedState:
    """Two attention poolings over the same instances.

    Attributes:
        bag: Under the bag's own attention.
        tokens: Under the tokens' heads.
    """

    bag: AttentionState
    tokens: AttentionState

    @property
    def count(self) -> int:
        return self.bag.count


class MergedTokensAggregator(PooledAggregator[MergedState]):
    """Attention pooling of the instances and of k tokens that attend them: mergeable.

    The tokens depend on the bag only through fixed queries, so their heads fold as any channel
    does. They are computed for a score, and then join the bag as k more instances.

    Attributes:
        bag: Pools the instances.
        tokens: Pools them for the tokens.
    """

    def __init__(
        self,
        channels: int,
        value_dim: int,
        classifier: Classifier,
        arrays: Arrays,
        *,
        activation: str,
    ) -> None:
        """Take the sizes and weights.

        Args:
            channels: Channels of the bag's attention.
            value_dim: Width of an embedding.
            classifier: Takes pooled (b, channels, value_dim).
            arrays: `to_out`, from a token's heads to an embedding; `branch`, perhaps `gate`, and
                `last`: the bag's attention; `heads` and `token_dim` of the tokens' attention, and
                how many `tokens`.
            activation: Of the attention's branch: relu, gelu or tanh.
        """
        heads, count, token_dim = (int(arrays[n]) for n in ("heads", "tokens", "token_dim"))
        self.classifier, self._activation = classifier, activation
        self.bag = AttentionAggregator(channels, value_dim, classifier)
        self.tokens = MultiheadAggregator(heads * count, token_dim, classifier, heads=heads)
        self._extra = {TOKEN_VALUES: token_dim, TOKEN_LOGITS: heads * count}
        self._arrays = {
            name: array.astype(np.float64)
            for name, array in arrays.items()
            if name.endswith((".weight", ".bias"))
        }

    def initial_state(self) -> MergedState:
        return MergedState(self.bag.initial_state(), self.tokens.initial_state())

    def update(self, state: MergedState, batch: InstanceBatch) -> MergedState:
        check_batch(batch, self.bag.value_dim, channels=self.bag.channels, extra=self._extra)
        if len(batch) == 0:
            return state
        for_tokens = InstanceBatch(batch.extra[TOKEN_VALUES], batch.extra[TOKEN_LOGITS])
        return MergedState(
            self.bag.update(state.bag, batch), self.tokens.update(state.tokens, for_tokens)
        )

    def merge(self, left: MergedState, right: MergedState) -> MergedState:
        return MergedState(
            self.bag.merge(left.bag, right.bag), self.tokens.merge(left.tokens, right.tokens)
        )

    def pooled(self, state: MergedState) -> Float64Array:
        """Return the weighted mean of instances and tokens for each channel, float64 (k, l)."""
        # The tokens as embeddings, and their logits under the bag's attention.
        tokens = linear(self.tokens.pooled(state.tokens), self._arrays, "to_out")
        hidden = activate(linear(tokens, self._arrays, "branch"), self._activation)
        if "gate.weight" in self._arrays:
            hidden = hidden * sigmoid(linear(tokens, self._arrays, "gate"))
        logits = linear(hidden, self._arrays, "last")
        # They join the bag as further instances.
        peak = logits.max(axis=0)
        unnormalised = np.exp(logits - peak)
        mass, total = unnormalised.sum(axis=0), unnormalised.T @ tokens
        joined = AttentionState(peak, mass, total, len(tokens))
        return self.bag.pooled(self.bag.merge(state.bag, joined))

    def attention(self, state: MergedState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the instances, float32 (n, channels).

        The tokens' own share is left out, since they have no place on the slide.
        """
        return self.bag.attention(state.bag, batch)

    def to_bytes(self, state: MergedState) -> bytes:
        return to_bytes(np.concatenate([_numbers(state.bag), _numbers(state.tokens)]))

    def from_bytes(self, data: bytes) -> MergedState:
        split = _length(self.bag)
        numbers = from_bytes(data, split + _length(self.tokens))
        return MergedState(
            self.bag.from_bytes(to_bytes(numbers[:split])),
            self.tokens.from_bytes(to_bytes(numbers[split:])),
        )


def _numbers(state: AttentionState) -> Float64Array:
    return np.concatenate([[state.count], state.peak, state.mass, state.weighted_sum.ravel()])


def _length(aggregator: AttentionAggregator) -> int:
    return 1 + aggregator.channels * (2 + aggregator.value_dim)
