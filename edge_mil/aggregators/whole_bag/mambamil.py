"""MambaMIL: selective scans over the bag, in order and in another order, then pooling.

Source:
    Yang, Wang and Chen 2024, arXiv:2403.06800; isyangshu/MambaMIL, models/MambaMIL.py
    and mamba_ssm/modules/srmamba.py; the scan: Gu and Dao 2023, arXiv:2312.00752.
"""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import (
    Arrays,
    attention_weights,
    last_layer,
    layer_norm,
    linear,
    sigmoid,
)
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array, Int64Array

STEP_NUMBERS = 1 << 19
"""Numbers of the scan's inputs that are held at once: 32 steps of 1024 channels with 16 states."""
PADDING = -1
"""Row number of a step of zeros that fills up the re-ordered sequence."""


class MambaMilAggregator(WholeBagAggregator):
    """Layers h + scans(LN h), a layer norm, and attention pooling with one channel.

    Attributes:
        scan: Order of the second scan of a layer: sr (re-ordered), bi (reversed), or mamba, which
            has none.
        rate: Stride of the re-ordered sequence.
        layers: How many layers there are.
    """

    def __init__(
        self,
        value_dim: int,
        classifier: Classifier,
        arrays: Arrays,
        *,
        scan: str,
        rate: int,
        layers: int,
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of an embedding.
            classifier: Turns the logits into a score.
            arrays: `layers`.i.norm and the weights of its two branches, `norm`, `attention.0`,
                `attention.2`, `classifier`.
            scan: Order of the second scan: sr, bi or mamba.
            rate: Stride of the re-ordered sequence.
            layers: How many layers there are.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.scan, self.rate, self.layers = arrays, scan, rate, layers

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits and the pooling's attention, (n, 1)."""
        arrays, h = self._arrays, embeddings
        for layer in range(self.layers):
            at = f"layers.{layer}"
            h = h + self._layer(layer_norm(h, arrays, f"{at}.norm"), at)
        h = layer_norm(h, arrays, "norm")
        hidden = np.tanh(linear(h, arrays, "attention.0"))
        weights = attention_weights(linear(hidden, arrays, "attention.2"))
        pooled = weights.T @ h.astype(np.float64)
        return last_layer(pooled, arrays, "classifier"), weights.astype(np.float32)

    def _layer(self, u: Float32Array, at: str) -> Float32Array:
        """Return out_proj of the sum of the branches, each over its own order of the rows."""
        projected = linear(u, self._arrays, f"{at}.in_proj")
        forward = np.arange(len(u), dtype=np.int64)
        total = np.zeros((len(u), projected.shape[1] // 2), dtype=np.float32)
        branches = [(forward, "")]
        if self.scan == "sr":
            branches.append((reordered(len(u), self.rate), "_b"))
        elif self.scan == "bi":
            branches.append((forward[::-1], "_b"))
        for order, branch in branches:
            _Branch(self._arrays, at, branch).add_to(total, projected, order)
        return linear(total, self._arrays, f"{at}.out_proj")


class _Branch:
    """One branch of a layer: a causal convolution, a selective scan, and a gate.

    The scan's state runs from step to step; all channels take a step at once.
    """

    def __init__(self, arrays: Arrays, at: str, branch: str) -> None:
        self._arrays, self._at, self._branch = arrays, at, branch
        self._a: Float32Array = np.ascontiguousarray(arrays[f"{at}.A{branch}"].T)
        self._d: Float32Array = arrays[f"{at}.D{branch}"]
        self._kernel: Float32Array = arrays[f"{at}.conv1d{branch}.weight"]
        self._bias: Float32Array = arrays[f"{at}.conv1d{branch}.bias"]

    def add_to(self, total: Float32Array, projected: Float32Array, order: Int64Array) -> None:
        """Add the branch's gated outputs to the rows that they belong to.

        Args:
            total: float32 (n, channels), written to.
            projected: Output of in_proj, float32 (n, 2 * channels): inputs, then gates.
            order: Row of each step, PADDING for zeros, int64 (steps,).
        """
        states, channels = self._a.shape
        taps = self._kernel.shape[1]
        steps = max(STEP_NUMBERS // (channels * states), taps)
        # What the convolution and the scan carry over from one part of the sequence to the next.
        before = np.zeros((taps - 1, channels), dtype=np.float32)
        state = np.zeros((states, channels), dtype=np.float32)
        for at in range(0, len(order), steps):
            rows = order[at : at + steps]
            part = projected[rows]
            part[rows == PADDING] = 0
            inputs = np.concatenate([before, part[:, :channels]])
            before = inputs[len(rows) :]
            outputs, state = self._scan(self._convolved(inputs), state)
            outputs *= _silu(part[:, channels:])
            real = rows != PADDING
            total[rows[real]] += outputs[real]

    def _convolved(self, inputs: Float32Array) -> Float32Array:
        """Return silu of the causal depth-wise convolution, float32 (steps, channels)."""
        taps = self._kernel.shape[1]
        steps = len(inputs) - taps + 1
        out = np.tile(self._bias, (steps, 1))
        for tap in range(taps):
            out += inputs[tap : tap + steps] * self._kernel[:, tap]
        return _silu(out)

    def _scan(self, x: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Run s_t = exp(dt A) s_(t-1) + dt x B_t and y_t = C_t . s_t + D x_t.

        Args:
            x: float32 (steps, channels).
            state: s before the first step, float32 (states, channels).

        Returns:
            y, float32 (steps, channels), and the state after the last step.
        """
        arrays, branch = self._arrays, self._branch
        # x_proj gives, for each step, a low-rank dt, then B and C.
        projected = linear(x, arrays, f"{self._at}.x_proj{branch}")
        states = len(self._a)
        ranks = projected.shape[1] - 2 * states
        b, c = projected[:, ranks : ranks + states], projected[:, ranks + states :]
        # dt = softplus(dt_proj ...), in a form that does not overflow.
        dt = linear(projected[:, :ranks], arrays, f"{self._at}.dt_proj{branch}")
        dt = np.maximum(dt, np.float32(0)) + np.log1p(np.exp(-np.abs(dt)))
        decay = dt[:, None, :] * self._a
        np.exp(decay, out=decay)
        held = (dt * x)[:, None, :] * b[:, :, None]  # becomes s_t of every step
        for keep, now in zip(decay, held, strict=True):
            keep *= state
            now += keep
            state = now
        # Not a product of BLAS, whose threads would wait for each other at every step.
        outputs: Float32Array = np.einsum("tsc,ts->tc", held, c)
        outputs += self._d * x
        return outputs, state.copy()


def reordered(count: int, rate: int) -> Int64Array:
    """Return the rows of the re-ordered sequence: every `rate`-th, from each start in turn.

    Rows beyond the last one are PADDING: zeros, which lie between the real ones.

    Args:
        count: Rows n.
        rate: The stride.
    """
    filled = -(-count // rate) * rate
    rows = np.arange(filled, dtype=np.int64)
    rows[count:] = PADDING
    order: Int64Array = rows.reshape(-1, rate).T.ravel()
    return order


def _silu(x: Float32Array) -> Float32Array:
    return np.asarray(x * sigmoid(x), dtype=np.float32)
