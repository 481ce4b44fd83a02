"""Attention pooling that also pools a few tokens made from the whole bag (MHIM-MIL's merge)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays
from edge_mil.aggregators.mergeable.attention import AttentionAggregator, AttentionState
from edge_mil.aggregators.mergeable.multihead import MultiheadAggregator
from edge_mil.aggregators.mergeable.pooled import PooledAggregator
from edge_mil.aggregators.state_bytes import from_bytes, to_bytes
from edge_mil.errors import InvalidInstancesError
from edge_mil.types import Float32Array, Float64Array, InstanceBatch

TOKEN_VALUES, TOKEN_LOGITS = "token_values", "token_logits"


@dataclass(frozen=True, slots=True, eq=False)
class MergedState:
    """What the pooling remembers of the instances, and what the tokens remember of them.

    Attributes:
        bag: The instances, under the bag's own attention.
        tokens: The same instances, under the tokens' heads.
    """

    bag: AttentionState
    tokens: AttentionState

    @property
    def count(self) -> int:
        """Number of instances seen."""
        return self.bag.count


class MergedTokensAggregator(PooledAggregator[MergedState]):
    """Attention pooling of the instances and of k tokens that attend them: mergeable.

    The tokens depend on the bag only through fixed queries, so their heads fold as any channel
    does; they are computed when a score is asked for, and join the bag as k more instances.

    Attributes:
        bag: Pools the instances.
        tokens: Pools them for the tokens.

    Source:
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py, `forward_test` with
        `merge_test`; `aggregators.md`, 4.5.
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
        heads, count = int(arrays["heads"]), int(arrays["tokens"])
        self.classifier, self._activation = classifier, activation
        self.bag = AttentionAggregator(channels, value_dim, classifier)
        self.tokens = MultiheadAggregator(
            heads * count, int(arrays["token_dim"]), classifier, heads=heads
        )
        self._arrays = {
            name: array.astype(np.float64)
            for name, array in arrays.items()
            if name.endswith((".weight", ".bias"))
        }

    def initial_state(self) -> MergedState:
        """Return the state of the empty bag."""
        return MergedState(self.bag.initial_state(), self.tokens.initial_state())

    def update(self, state: MergedState, batch: InstanceBatch) -> MergedState:
        """Return the state after also seeing `batch`; `state` stays as it was."""
        if len(batch) == 0:
            return state
        if TOKEN_VALUES not in batch.extra or TOKEN_LOGITS not in batch.extra:
            raise InvalidInstancesError(
                "The instances come without what the tokens attend; the graphs are of another "
                "bundle."
            )
        attended = InstanceBatch(batch.extra[TOKEN_VALUES], batch.extra[TOKEN_LOGITS])
        return MergedState(
            self.bag.update(state.bag, batch), self.tokens.update(state.tokens, attended)
        )

    def merge(self, left: MergedState, right: MergedState) -> MergedState:
        """Return the state of the two bags taken together."""
        return MergedState(
            self.bag.merge(left.bag, right.bag), self.tokens.merge(left.tokens, right.tokens)
        )

    def pooled(self, state: MergedState) -> Float64Array:
        """Return the weighted mean of instances and tokens for each channel, (k, l) float64."""
        tokens = self._linear(self.tokens.pooled(state.tokens), "to_out")
        logits = self._attend(tokens)
        peak = logits.max(axis=0)
        raised = np.exp(logits - peak)
        joined = AttentionState(peak, raised.sum(axis=0), raised.T @ tokens, len(tokens))
        return self.bag.pooled(self.bag.merge(state.bag, joined))

    def attention(self, state: MergedState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the instances, (n, channels) float32.

        The tokens' own share is left out: they are no places of the slide.
        """
        return self.bag.attention(state.bag, batch)

    def to_bytes(self, state: MergedState) -> bytes:
        """Serialise a state."""
        numbers = [_flat(state.bag), _flat(state.tokens)]
        return to_bytes(np.concatenate(numbers))

    def from_bytes(self, data: bytes) -> MergedState:
        """Read what `to_bytes` wrote."""
        split = _length(self.bag)
        numbers = from_bytes(data, split + _length(self.tokens))
        return MergedState(
            self.bag.from_bytes(to_bytes(numbers[:split])),
            self.tokens.from_bytes(to_bytes(numbers[split:])),
        )

    def _attend(self, tokens: Float64Array) -> Float64Array:
        """Return the bag's attention logits of tokens, float64 (k, channels)."""
        hidden = _bend(self._linear(tokens, "branch"), self._activation)
        if "gate.weight" in self._arrays:
            hidden = hidden * (0.5 + 0.5 * np.tanh(0.5 * self._linear(tokens, "gate")))
        return self._linear(hidden, "last")

    def _linear(self, rows: Float64Array, name: str) -> Float64Array:
        product = rows @ self._arrays[f"{name}.weight"].T
        bias = self._arrays.get(f"{name}.bias")
        return np.asarray(product if bias is None else product + bias)


def _flat(state: AttentionState) -> Float64Array:
    return np.concatenate([[state.count], state.peak, state.mass, state.weighted_sum.ravel()])


def _length(aggregator: AttentionAggregator) -> int:
    return 1 + aggregator.channels * (2 + aggregator.value_dim)


def _bend(x: Float64Array, name: str) -> Float64Array:
    """Apply an activation; gelu is the exact one, by erf."""
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.maximum(x, 0)
    return np.asarray(x * 0.5 * (1 + _erf(x * math.sqrt(0.5))))


_erf = np.vectorize(math.erf, otypes=[np.float64])
