"""Attention pooling in which every head pools its own slice of the embeddings."""

from __future__ import annotations

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.mergeable.attention import AttentionAggregator, AttentionState
from edge_mil.errors import BundleError
from edge_mil.types import Float64Array, InstanceBatch


class MultiheadAggregator(AttentionAggregator):
    """Multi-head attention of fixed queries: mergeable, because no query depends on the bag.

    Channel h * queries + q holds the attention logits of head h for query q, and pools columns
    h * w to (h + 1) * w of the embeddings, w their width over the number of heads. The classifier
    takes, for each query, the heads side by side.

    Attributes:
        queries: Queries q.
        heads: Heads h; channels are heads times queries.
        full_dim: Width l of the embeddings; `value_dim` is that of a head's slice, which is what a
            state holds of each channel.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2; dazhangyu123/ACMIL,
        architecture/transformer.py, `ACMIL_MHA`; ml-jku/hopfield-layers.
    """

    def __init__(
        self, channels: int, value_dim: int, classifier: Classifier, *, heads: int
    ) -> None:
        """Take the sizes.

        Args:
            channels: Heads times queries.
            value_dim: Width of the embeddings, of all heads.
            classifier: Takes pooled (b, queries, value_dim).
            heads: Number of heads.

        Raises:
            BundleError: The heads do not divide the channels and the embeddings evenly.
        """
        if heads < 1 or channels % heads or value_dim % heads:
            raise BundleError(
                f"{heads} heads do not divide {channels} channels and embeddings of width "
                f"{value_dim} evenly; export the head again."
            )
        super().__init__(channels, value_dim // heads, classifier)
        self.heads, self.queries, self.full_dim = heads, channels // heads, value_dim

    @property
    def expected_width(self) -> int:
        return self.full_dim

    def pooled(self, state: AttentionState) -> Float64Array:
        """Return the heads side by side for each query, float64 (queries, l)."""
        slices = super().pooled(state).reshape(self.heads, self.queries, self.value_dim)
        return np.ascontiguousarray(slices.transpose(1, 0, 2)).reshape(self.queries, -1)

    def weighted_sum(self, unnormalised: Float64Array, batch: InstanceBatch) -> Float64Array:
        """Return each channel's weighted sum of its head's slice, float64 (k, w)."""
        count = len(batch)
        weights = unnormalised.T.reshape(self.heads, self.queries, count)
        embeddings = batch.embeddings.astype(np.float64)
        slices = embeddings.reshape(count, self.heads, self.value_dim).transpose(1, 0, 2)
        return np.asarray((weights @ slices).reshape(self.channels, self.value_dim))
