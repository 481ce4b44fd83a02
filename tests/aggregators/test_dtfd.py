"""DTFD with MaxS and MaxMinS: the instances that go on are those of the formula, in any folding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.aggregators import Classifier
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.errors import StoreError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.types import InstanceBatch, InstanceOrder

WIDTH = 3
SPREADS = (0.0, 1.0, 30.0, 400.0)
"""Of the attention logits; at 400 nearly all shares are zero in float64."""


def made(classes: int, distill: str, groups: int, each: int, rounds: int = 1) -> Any:
    rng = np.random.default_rng(classes)
    shapes = {
        "branch": (4, WIDTH),
        "gate": (4, WIDTH),
        "attention": (1, 4),
        "classifier": (classes, WIDTH),
    }
    arrays = {f"{n}.weight": rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    arrays |= {f"{n}.bias": np.zeros(s[0], dtype=np.float32) for n, s in shapes.items()}
    options = {
        "distill": distill,
        "groups": groups,
        "instances": groups * each,
        "mean_inference": rounds,
    }
    kind = Classifier(tuple(map(str, range(classes))), "softmax", None)
    return build_aggregator("dtfd", Parts("dtfd", options, 9, WIDTH, 1, kind, {}, arrays))


def bag(classes: int, count: int, groups: int, seed: int, spread: float = 1.0) -> InstanceBatch:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((count, classes))
    if seed % 3 == 0:
        # Some alike in every score, and some without a favourite.
        scores[: count // 3] = scores[0]
        scores[count // 3 : count // 2] = 0.1
    single = [
        a.astype(np.float32)
        for a in (rng.standard_normal((count, WIDTH)), spread * rng.random((count, 1)), scores)
    ]
    instance_order = grid_order([(row % 7, row // 7) for row in range(count)])
    dealt = InstanceOrder(instance_order.keys, instance_order.cells, rng.integers(0, groups, count))
    return InstanceBatch(single[0], single[1], {"class_scores": single[2]}, dealt)


def log_odds(share: float, scores: Sequence[float]) -> float:
    """Return log-odds of the last class + log(c - 1), without rounding small shares away."""
    others = [share * (s - scores[-1]) for s in scores[:-1]]
    if not others:
        return 0.0
    high = max(others)
    if abs(high) < 0.1:
        return -math.log1p(math.fsum(math.expm1(o) for o in others) / len(others))
    return -high - math.log(math.fsum(math.exp(o - high) for o in others) / len(others))


def going_on(batch: InstanceBatch, groups: int, each: int, distill: str) -> list[int]:
    """Return the rows that go on, by the formula, one instance at a time."""
    assert batch.instance_order is not None
    assert batch.instance_order.groups is not None
    logits = batch.attention_logits[:, 0].astype(float).tolist()
    found: list[int] = []
    for group in range(groups):
        rows = np.flatnonzero(batch.instance_order.groups == group).tolist()
        if not rows:
            continue
        peak = max(logits[row] for row in rows)
        mass = math.fsum(math.exp(logits[row] - peak) for row in rows)
        odds = {
            row: log_odds(
                math.exp(logits[row] - peak) / mass,
                batch.extra["class_scores"][row].astype(float).tolist(),
            )
            for row in rows
        }
        keys = batch.instance_order.keys
        for sign in (-1, 1) if distill == "maxmins" else (-1,):
            found += sorted(rows, key=lambda row: (sign * odds[row], keys[row]))[:each]
    return found


def logits_of(aggregator: Any, batch: InstanceBatch) -> Any:
    return np.asarray(aggregator.score(aggregator.update(aggregator.initial_state(), batch)).logits)


@pytest.mark.parametrize("distill", ["maxs", "maxmins"])
@pytest.mark.parametrize("classes", [2, 3, 5])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_instances_that_go_on_are_those_of_the_formula(
    classes: int, distill: str, data: st.DataObject
) -> None:
    groups, each = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    count, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 10_000))
    batch = bag(classes, count, groups, seed, data.draw(st.sampled_from(SPREADS[:3])))
    aggregator = made(classes, distill, groups, each)
    rows = np.array(going_on(batch, groups, each, distill))
    # A head whose pseudo-bags hold no more than it takes passes on all that it gets.
    expected = made(classes, "maxs", 1, 1000)
    assert batch.instance_order is not None
    chosen = batch.take(rows)
    apart = grid_order([(row, 0) for row in range(len(rows))])  # one may be there twice
    alone = InstanceOrder(apart.keys, apart.cells, np.zeros(len(rows), dtype=np.int64))
    every = InstanceBatch(chosen.values, chosen.attention_logits, chosen.extra, alone)
    np.testing.assert_allclose(
        logits_of(aggregator, batch), logits_of(expected, every), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("distill", ["maxs", "maxmins"])
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_folding_gives_the_same_instances(
    classes: int, distill: str, data: st.DataObject
) -> None:
    groups, each = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rounds = data.draw(st.integers(1, 2))
    count, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 10_000))
    batch = bag(classes, count, groups, seed, data.draw(st.sampled_from(SPREADS)))
    if data.draw(st.booleans()) and batch.instance_order is not None:
        drawn = InstanceOrder(batch.instance_order.keys, batch.instance_order.cells)
        batch = InstanceBatch(batch.values, batch.attention_logits, batch.extra, drawn)
    aggregator = made(classes, distill, groups, each, rounds)
    order = np.asarray(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=6)))
    empty = aggregator.initial_state()
    states = [aggregator.update(empty, batch.take(part)) for part in np.split(order, cuts)]
    stored = [aggregator.to_bytes(state) for state in states]
    assert [aggregator.to_bytes(aggregator.from_bytes(one)) for one in stored] == stored
    while len(states) > 1:
        first, second = states.pop(0), states.pop(data.draw(st.integers(0, len(states) - 1)))
        states.append(aggregator.merge(first, second))
    want, got = logits_of(aggregator, batch), aggregator.score(states[0]).logits
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    shares = aggregator.attention(states[0], batch)
    assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_with_two_classes_it_is_mergeable_and_its_state_does_not_grow() -> None:
    aggregator = made(2, "maxmins", 3, 2)
    small, large = (
        aggregator.update(aggregator.initial_state(), bag(2, count, 3, 1)) for count in (60, 3000)
    )
    assert aggregator.incremental == "mergeable"
    assert len(aggregator.to_bytes(large)) <= len(aggregator.to_bytes(small)) + 64


def test_with_three_classes_few_instances_stay_in_the_race() -> None:
    aggregator = made(3, "maxs", 3, 2)
    state = aggregator.update(aggregator.initial_state(), bag(3, 5000, 3, 1))
    assert aggregator.incremental == "banked"
    assert len(state.sides[0].rows) < 500


def test_the_one_instance_of_a_pseudo_bag_is_its_top_and_its_bottom() -> None:
    aggregator = made(2, "maxmins", 1, 3)
    state = aggregator.update(aggregator.initial_state(), bag(2, 1, 1, 1))
    assert [len(side.keys) for side in state.sides] == [1, 1]


@pytest.mark.parametrize("classes", [2, 3])
def test_bytes_of_something_else_are_refused(classes: int) -> None:
    aggregator = made(classes, "maxs", 2, 1)
    with pytest.raises(StoreError, match="cannot be read"):
        aggregator.from_bytes(b"not a state")
