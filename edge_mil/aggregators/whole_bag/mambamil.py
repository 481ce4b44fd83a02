"""SR-Mamba: two selective scans over the bag, one of them re-ordered, then attention pooling.

Source:
    Yang, Wang and Chen 2024, arXiv:2403.06800; isyangshu/MambaMIL, models/MambaMIL.py and
    mamba_ssm/modules/srmamba.py; Gu and Dao 2023, arXiv:2312.00752 (the scan); `aggregators.md`,
    4.11.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, attention_weights, last_layer, layer_norm, linear
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array, Int64Array

STEP_NUMBERS = 1 << 19
"""Numbers of the scan's inputs that are held at once: 32 steps of 1024 channels with 16 states."""
NOWHERE = -1
"""Row number of a column of zeros that fills up the re-ordered sequence."""


class MambaMilAggregator(WholeBagAggregator):
    """Layers of SR-Mamba, layer norm, and one attention channel over what they give.

    Attributes:
        rate: Stride of the re-ordered sequence.
        layers: How many there are.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, rate: int, layers: int
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Says what the logits mean.
            arrays: `layers`.i.norm and the weights of its two branches, `norm`, `attention.0`,
                `attention.2`, `classifier`.
            rate: See above.
            layers: See above.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.rate, self.layers = arrays, rate, layers

    def forward(self, values: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and the pooling's attention, (n, 1)."""
        arrays, h = self._arrays, values
        for layer in range(self.layers):
            at = f"layers.{layer}"
            h = h + self._layer(layer_norm(h, arrays, f"{at}.norm"), at)
        h = layer_norm(h, arrays, "norm")
        hidden = np.tanh(linear(h, arrays, "attention.0"))
        weights = attention_weights(linear(hidden, arrays, "attention.2"))
        pooled = weights.T @ h.astype(np.float64)
        return last_layer(pooled, arrays, "classifier"), weights.astype(np.float32)

    def _layer(self, u: Float32Array, at: str) -> Float32Array:
        projected = linear(u, self._arrays, f"{at}.in_proj")
        forward = np.arange(len(u), dtype=np.int64)
        total = np.zeros((len(u), projected.shape[1] // 2), dtype=np.float32)
        for order, branch in ((forward, ""), (reordered(len(u), self.rate), "_b")):
            _Scan(self._arrays, at, branch).add_to(total, projected, order)
        return linear(total, self._arrays, f"{at}.out_proj")


class _Scan:
    """One branch: a causal convolution, a selective scan, and a gate.

    Its state runs from step to step; all channels take a step at once.
    """

    def __init__(self, arrays: Arrays, at: str, branch: str) -> None:
        self._arrays, self._at, self._branch = arrays, at, branch
        self._rates: Float32Array = np.ascontiguousarray(arrays[f"{at}.A{branch}"].T)
        self._skip: Float32Array = arrays[f"{at}.D{branch}"]
        self._kernel: Float32Array = arrays[f"{at}.conv1d{branch}.weight"]
        self._bias: Float32Array = arrays[f"{at}.conv1d{branch}.bias"]

    def add_to(self, total: Float32Array, projected: Float32Array, order: Int64Array) -> None:
        """Add the branch's gated outputs to the rows that they belong to.

        Args:
            total: float32 (n, channels), written to.
            projected: What in_proj gives, float32 (n, 2 * channels): inputs, then gates.
            order: Row of each step, NOWHERE for zeros, int64 (steps,).
        """
        states, channels = self._rates.shape
        taps = self._kernel.shape[1]
        steps = max(STEP_NUMBERS // (channels * states), taps)
        before = np.zeros((taps - 1, channels), dtype=np.float32)
        state = np.zeros((states, channels), dtype=np.float32)
        for at in range(0, len(order), steps):
            rows = order[at : at + steps]
            chosen = projected[rows]
            chosen[rows == NOWHERE] = 0
            seen = np.concatenate([before, chosen[:, :channels]])
            before = seen[len(rows) :]
            outputs, state = self._scan(self._convolved(seen), state)
            outputs *= _silu(chosen[:, channels:])
            real = rows != NOWHERE
            total[rows[real]] += outputs[real]

    def _convolved(self, seen: Float32Array) -> Float32Array:
        """Return silu of the causal convolution, float32 (steps, channels)."""
        taps = self._kernel.shape[1]
        steps = len(seen) - taps + 1
        out = np.tile(self._bias, (steps, 1))
        for tap in range(taps):
            out += seen[tap : tap + steps] * self._kernel[:, tap]
        return _silu(out)

    def _scan(self, x: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return outputs, float32 (steps, channels), and the state after them."""
        arrays, branch = self._arrays, self._branch
        projected = linear(x, arrays, f"{self._at}.x_proj{branch}")
        width = len(self._rates)
        ranks = projected.shape[1] - 2 * width
        pace = linear(projected[:, :ranks], arrays, f"{self._at}.dt_proj{branch}")
        pace = np.maximum(pace, np.float32(0)) + np.log1p(np.exp(-np.abs(pace)))
        writes = projected[:, ranks : ranks + width]
        reads = projected[:, ranks + width :]
        kept = pace[:, None, :] * self._rates
        np.exp(kept, out=kept)
        states = (pace * x)[:, None, :] * writes[:, :, None]
        for keep, now in zip(kept, states, strict=True):
            keep *= state
            now += keep
            state = now
        # Not a product of BLAS, whose threads would wait for each other at every step.
        outputs: Float32Array = np.einsum("tsc,ts->tc", states, reads)
        outputs += self._skip * x
        return outputs, state.copy()


def reordered(count: int, rate: int) -> Int64Array:
    """Return the rows of the re-ordered sequence: every `rate`-th, from each start in turn.

    Rows beyond the last one are NOWHERE: zeros, which lie between the real ones.

    Args:
        count: Rows n.
        rate: The stride.
    """
    filled = -(-count // rate) * rate
    rows = np.arange(filled, dtype=np.int64)
    rows[count:] = NOWHERE
    order: Int64Array = rows.reshape(-1, rate).T.ravel()
    return order


def _silu(x: Float32Array) -> Float32Array:
    # tanh saturates where exp(-x) would overflow.
    half = np.float32(0.5)
    return np.asarray(x * (half + half * np.tanh(half * x)), dtype=np.float32)
