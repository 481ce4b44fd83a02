"""Attention pooling where a sum is likely to lose its digits."""

from __future__ import annotations

import numpy as np
from aggregator_zoo import plain

from edge_mil.types import InstanceBatch

WIDTH = 3


def test_removing_a_field_that_held_all_the_mass_leaves_a_right_score() -> None:
    """Subtraction would leave NaN or 250 % error here."""
    tested = plain("attention", 1)
    aggregator, features = tested.aggregator, tested.features(16, 5)
    usual = tested.state(features, np.arange(16))
    debris = InstanceBatch(np.full((1, WIDTH), 9, np.float32), np.full((1, 1), 110, np.float32))
    alone = aggregator.update(aggregator.initial_state(), debris)
    with_debris = aggregator.score(aggregator.merge(usual, alone))
    np.testing.assert_allclose(with_debris.logits, np.full(WIDTH, 9.0), rtol=1e-12)
    tested.check(aggregator.merge(usual, aggregator.initial_state()), features, np.arange(16))


def test_large_logits_neither_overflow_nor_lose_the_largest() -> None:
    aggregator = plain("attention", 1).aggregator
    logits = np.asarray([[-900.0], [0.0], [1800.0], [1799.0]], np.float32)
    batch = InstanceBatch(np.eye(4, WIDTH, dtype=np.float32), logits)
    score = aggregator.score(aggregator.update(aggregator.initial_state(), batch))
    share = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(score.logits, [0.0, 0.0, share], atol=1e-12)
