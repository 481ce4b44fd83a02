"""ILRA-MIL: low-rank latents attend the bag and the bag attends them, block after block.

Source:
    Xiang and Zhang 2023, "Exploring low-rank property in multiple instance learning for whole slide
    image classification", ICLR; dazhangyu123/ACMIL, architecture/ilra.py.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays, layer_norm, linear, sigmoid, softmax_rows
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator
from edge_mil.types import Float32Array, Float64Array, SlideScore

ROWS = 8192
"""Rows of the bag that are computed at once: bounds memory."""


class IlraAggregator(WholeBagAggregator):
    """Runs the blocks over the bag and pools it by learned seeds; any order of the bag.

    Attributes:
        blocks: How many blocks there are.
        heads: Heads of every attention.
    """

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, *, blocks: int, heads: int
    ) -> None:
        """Take the weights.

        Args:
            value_dim: Width of a feature: the bag is kept as it is.
            classifier: Turns the logits into a score.
            arrays: `blocks.i.latent`, `blocks.i.forward.*`, `blocks.i.backward.*`, `pooling.seeds`,
                `pooling.mha.*`, `classifier`.
            blocks: How many blocks there are.
            heads: Heads of every attention.
        """
        super().__init__(value_dim, classifier)
        self._arrays, self.blocks, self.heads = arrays, blocks, heads

    def forward(self, embeddings: Float32Array) -> tuple[Float64Array, Float32Array | None]:
        """Return the logits; the seeds' attention is over mixed instances, so none is given."""
        rows = embeddings
        for number in range(self.blocks):
            at = f"blocks.{number}"
            # The latents attend the bag, then every instance attends the latents.
            latents = self._attend(self._arrays[f"{at}.latent"], rows, f"{at}.forward")
            rows = np.concatenate(
                [
                    self._attend(rows[start : start + ROWS], latents, f"{at}.backward")
                    for start in range(0, len(rows), ROWS)
                ]
            )
        seeds = self._attend(self._arrays["pooling.seeds"], rows, "pooling.mha")
        return linear(seeds, self._arrays, "classifier").ravel().astype(np.float64), None

    def _score(self, state: Bank) -> SlideScore:
        """Return the score; each seed's logits have probabilities of their own."""
        score = super()._score(state)
        seeds = len(self._arrays["pooling.seeds"])
        if seeds == 1 or not score.probabilities:
            return score
        each = softmax_rows(np.array(score.logits).reshape(seeds, -1))
        return dataclasses.replace(score, probabilities=tuple(each.ravel().tolist()))

    def _attend(self, rows: Float32Array, context: Float32Array, at: str) -> Float32Array:
        """Return one attention block's rows (q, l) of rows (q, d) that attend a context (n, e).

        With Q = fc_q(rows): O = LN0(Q + attention(Q, context)), O = LN1(O + relu(fc_o O)), and in
        gated blocks O * silu(gate(rows)).
        """
        arrays = self._arrays
        first = linear(rows, arrays, f"{at}.fc_q")
        out = first + self._attention(linear(first, arrays, f"{at}.query"), context, at)
        out = self._norm(out, f"{at}.ln0")
        out = out + np.maximum(linear(out, arrays, f"{at}.fc_o"), 0)
        out = self._norm(out, f"{at}.ln1")
        if f"{at}.gate.weight" in arrays:
            gate = linear(rows, arrays, f"{at}.gate")
            out *= gate * sigmoid(gate)
        return out

    def _norm(self, rows: Float32Array, at: str) -> Float32Array:
        return layer_norm(rows, self._arrays, at) if f"{at}.weight" in self._arrays else rows

    def _attention(self, queries: Float32Array, context: Float32Array, at: str) -> Float32Array:
        """Return multi-head attention of queries (q, l) over a context (n, e), float32 (q, l)."""
        scale = np.float32((queries.shape[1] / self.heads) ** -0.5)
        split = _heads(queries, self.heads) * scale
        if len(context) <= ROWS:
            keys, values = self._projected(context, at)
            mixed: Float32Array = softmax_rows(split @ keys.transpose(0, 2, 1)) @ values
        else:
            mixed = self._in_parts(split, context, at)
        joined = mixed.transpose(1, 0, 2).reshape(len(queries), -1)
        return linear(np.ascontiguousarray(joined, dtype=np.float32), self._arrays, f"{at}.out")

    def _in_parts(self, queries: Float32Array, context: Float32Array, at: str) -> Float32Array:
        """Return the same for a large context, by an online softmax with float64 sums."""
        shape = queries.shape
        peak = np.full((*shape[:2], 1), -np.inf)
        mass, total = np.zeros((*shape[:2], 1)), np.zeros(shape)
        for start in range(0, len(context), ROWS):
            keys, values = self._projected(context[start : start + ROWS], at)
            logits = (queries @ keys.transpose(0, 2, 1)).astype(np.float64)
            higher = np.maximum(peak, logits.max(axis=2, keepdims=True))
            unnormalised, keep = np.exp(logits - higher), np.exp(peak - higher)
            mass = keep * mass + unnormalised.sum(axis=2, keepdims=True)
            total = keep * total + unnormalised @ values.astype(np.float64)
            peak = higher
        return np.asarray(total / mass, dtype=np.float32)

    def _projected(self, context: Float32Array, at: str) -> tuple[Float32Array, Float32Array]:
        """Return keys and values, each (heads, n, l / heads)."""
        keys = linear(linear(context, self._arrays, f"{at}.fc_k"), self._arrays, f"{at}.key")
        values = linear(linear(context, self._arrays, f"{at}.fc_v"), self._arrays, f"{at}.value")
        return _heads(keys, self.heads), _heads(values, self.heads)


def _heads(rows: Float32Array, heads: int) -> Float32Array:
    """Return rows (n, l) as (heads, n, l / heads)."""
    split: Float32Array = rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)
    return split
