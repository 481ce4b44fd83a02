"""Score bags with the bundle's own head, to compare extractor graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_mil.aggregators.dense import softmax_rows
from edge_mil.backends import open_backend
from edge_mil.protocols import Graph
from edge_mil.types import Float32Array, Float64Array

if TYPE_CHECKING:
    from edge_mil_export.onnx_export.exported_aggregator import ExportedAggregator


SMALLEST_LENGTH = 1e-12
"""A shorter vector is not brought to unit length."""


class HeadScorer:
    """Scores bags with the head that goes into the bundle."""

    def __init__(self, aggregator: ExportedAggregator) -> None:
        self._module, self._kind = aggregator.module, aggregator.task.probabilities
        self._attend = None
        if aggregator.spec.channels and "attend.onnx" in aggregator.graphs:
            self._attend = open_backend("cpu").open(
                Graph(aggregator.graphs["attend.onnx"], "attend.onnx")
            )

    def score(self, features: Float32Array) -> Float64Array:
        """Return probabilities (c,); without a classifier the pooled vector at unit length."""
        import torch

        with torch.no_grad():
            found = self._module(torch.from_numpy(np.ascontiguousarray(features)))
        logits = found.detach().double().numpy().ravel()
        if self._kind == "softmax":
            return softmax_rows(logits)
        if self._kind == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-logits)))
        return np.asarray(logits / max(float(np.linalg.norm(logits)), SMALLEST_LENGTH))

    def attention_logits(self, features: Float32Array) -> Float32Array | None:
        if self._attend is None:
            return None
        given = np.ascontiguousarray(features)
        return self._attend.run({"features": given}).get("attention_logits")
