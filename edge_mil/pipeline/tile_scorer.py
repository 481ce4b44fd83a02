"""Score bags of tiles with a whole bundle, to compare two sources of the same tissue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_mil.pipeline.instance_order import grid_order
from edge_mil.pipeline.model import Model
from edge_mil.types import Float32Array, InstanceOrder, Int64Array, SlideScore, UInt8Array

BATCH = 32
"""Tiles extracted at once."""
COLUMNS = 1000
"""Cells of a row: tiles without positions get some, for heads that need the order of a bag."""


class ModelTileScorer:
    """A model as `edge_mil.calibration.passport` needs it."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def features(self, tiles: UInt8Array) -> Float32Array:
        """Return features (n, d) of tiles, RGB uint8 (n, h, w, 3)."""
        parts = [self._model.extract(tiles[k : k + BATCH]) for k in range(0, len(tiles), BATCH)]
        return np.concatenate(parts)

    def attention(self, features: Float32Array) -> Float32Array:
        """Return attention logits (n, k); k is 0 without attention."""
        return self._model.attend(features, _order(np.arange(len(features)))).attention_logits

    def distance(self, features: Float32Array) -> Float32Array | None:
        """Return distances (n,) from the bundle's reference; None where it has none."""
        reference = self._model.reference
        if reference is None or not reference.has_limit:
            return None
        return reference.distance(features)

    def scores(self, features: Float32Array, bags: Sequence[Int64Array]) -> list[SlideScore | None]:
        """Return the score of each bag of rows; None where it is smaller than the head needs."""
        aggregator = self._model.aggregator
        batch = self._model.attend(features, _order(np.arange(len(features))))
        states = [aggregator.update(aggregator.initial_state(), batch.take(bag)) for bag in bags]
        return aggregator.scores(states)


def _order(rows: Int64Array) -> InstanceOrder:
    return grid_order([(int(row % COLUMNS), int(row // COLUMNS)) for row in rows])
