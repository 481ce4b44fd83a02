"""The laws of every pooling: any split, order, merge tree and removal gives the batch result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.aggregators import (
    AttentionAggregator,
    Classifier,
    MaxAggregator,
    MeanAggregator,
)
from edge_mil.errors import EmptyBagError, InvalidInstancesError, StoreError
from edge_mil.protocols import Aggregator
from edge_mil.types import InstanceBatch

WIDTH = 3
CHANNELS = {"attention": 1, "three channels": 3, "mean": 0, "max": 0}
TOLERANCE = 1e-12
"""float64 sums of some tens of numbers, in any order."""


def aggregator(name: str) -> Aggregator[Any]:
    head = Classifier(("a", "b", "c"), "softmax", None)
    if name == "mean":
        return MeanAggregator(WIDTH, head)
    if name == "max":
        return MaxAggregator(WIDTH, head)
    return AttentionAggregator(CHANNELS[name], WIDTH, head)


def by_definition(name: str, batch: InstanceBatch) -> np.ndarray[Any, Any]:
    """Pool a whole bag at once, from the formula."""
    values, logits = batch.values.astype(float), batch.attention_logits.astype(float)
    if name == "mean":
        return values.mean(axis=0)
    if name == "max":
        return values.max(axis=0)
    raised = np.exp(logits - logits.max(axis=0))
    return ((raised / raised.sum(axis=0)).T @ values).ravel()


@st.composite
def bags(draw: st.DrawFn, name: str, *, smallest: int = 1) -> InstanceBatch:
    """Draw a bag; attention logits range over some hundreds, as untrained heads' do."""
    count = draw(st.integers(smallest, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 1.0, 30.0, 500.0]))
    if draw(st.booleans()):
        values = rng.standard_normal((count, WIDTH))
    else:
        values = np.repeat(rng.standard_normal((1, WIDTH)), count, axis=0)
    logits = spread * rng.standard_normal((count, CHANNELS[name]))
    return InstanceBatch(values.astype(np.float32), logits.astype(np.float32))


def rows(batch: InstanceBatch, chosen: np.ndarray[Any, Any]) -> InstanceBatch:
    return InstanceBatch(batch.values[chosen], batch.attention_logits[chosen])


def pooled(pooling: Aggregator[Any], state: Any) -> np.ndarray[Any, Any]:
    return np.asarray(pooling.score(state).logits)


def assert_close(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", CHANNELS)
@given(data=st.data())
def test_any_order_split_and_merge_tree_is_the_batch(name: str, data: st.DataObject) -> None:
    pooling, bag = aggregator(name), data.draw(bags(name))
    order = np.asarray(data.draw(st.permutations(range(len(bag)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(bag)), max_size=6)))
    states = [
        pooling.update(pooling.initial_state(), rows(bag, part)) for part in np.split(order, cuts)
    ]
    while len(states) > 1:
        at = data.draw(st.integers(0, len(states) - 2))
        other = data.draw(st.integers(at + 1, len(states) - 1))
        right, left = states.pop(other), states.pop(at)
        states.append(pooling.merge(left, right))
    assert pooling.instances(states[0]) == len(bag)
    assert_close(pooled(pooling, states[0]), by_definition(name, bag))


@pytest.mark.parametrize("name", CHANNELS)
@given(data=st.data())
def test_update_is_merging_the_state_of_the_new_instances(name: str, data: st.DataObject) -> None:
    pooling, first, second = aggregator(name), data.draw(bags(name)), data.draw(bags(name))
    start = pooling.update(pooling.initial_state(), first)
    updated = pooling.update(start, second)
    merged = pooling.merge(start, pooling.update(pooling.initial_state(), second))
    assert_close(pooled(pooling, updated), pooled(pooling, merged))
    # A state is a value: the first one is as it was.
    assert_close(pooled(pooling, start), by_definition(name, first))


@pytest.mark.parametrize("name", CHANNELS)
@given(data=st.data())
def test_the_empty_bag_is_the_identity(name: str, data: st.DataObject) -> None:
    pooling, bag = aggregator(name), data.draw(bags(name))
    state, empty = pooling.update(pooling.initial_state(), bag), pooling.initial_state()
    for merged in (pooling.merge(state, empty), pooling.merge(empty, state)):
        assert pooling.to_bytes(merged) == pooling.to_bytes(state)


@pytest.mark.parametrize("name", CHANNELS)
@given(data=st.data())
def test_removing_a_field_gives_the_batch_of_the_others(name: str, data: st.DataObject) -> None:
    pooling = aggregator(name)
    fields = data.draw(st.lists(bags(name), min_size=2, max_size=6))
    gone = data.draw(st.integers(0, len(fields) - 1))
    states = [pooling.update(pooling.initial_state(), field) for field in fields]
    left = pooling.initial_state()
    for at, state in enumerate(states):
        left = left if at == gone else pooling.merge(left, state)
    kept = [field for at, field in enumerate(fields) if at != gone]
    bag = InstanceBatch(
        np.concatenate([field.values for field in kept]),
        np.concatenate([field.attention_logits for field in kept]),
    )
    assert_close(pooled(pooling, left), by_definition(name, bag))


def test_removing_a_field_that_held_all_the_mass_leaves_a_right_score() -> None:
    """Subtraction would leave NaN or 250 % error here (`aggregators.md`, section 3)."""
    pooling = aggregator("attention")
    rng = np.random.default_rng(5)
    usual = InstanceBatch(
        rng.standard_normal((16, WIDTH)).astype(np.float32),
        rng.standard_normal((16, 1)).astype(np.float32),
    )
    debris = InstanceBatch(np.full((1, WIDTH), 9, np.float32), np.full((1, 1), 110, np.float32))
    start = pooling.initial_state()
    states = [pooling.update(start, usual), pooling.update(start, debris)]
    assert_close(pooled(pooling, pooling.merge(*states)), np.full(WIDTH, 9.0))
    assert_close(
        pooled(pooling, pooling.merge(states[0], start)), by_definition("attention", usual)
    )


@pytest.mark.parametrize("name", CHANNELS)
def test_an_empty_bag_has_no_score(name: str) -> None:
    pooling = aggregator(name)
    empty = InstanceBatch(
        np.empty((0, WIDTH), np.float32), np.empty((0, CHANNELS[name]), np.float32)
    )
    state = pooling.update(pooling.initial_state(), empty)
    assert pooling.instances(state) == 0
    assert pooling.scores([state, pooling.merge(state, state)]) == [None, None]
    with pytest.raises(EmptyBagError):
        pooling.score(state)


@pytest.mark.parametrize("name", CHANNELS)
@given(data=st.data())
def test_a_state_survives_its_bytes_to_the_bit(name: str, data: st.DataObject) -> None:
    pooling, bag = aggregator(name), data.draw(bags(name, smallest=0))
    state = pooling.update(pooling.initial_state(), bag)
    stored = pooling.to_bytes(state)
    assert pooling.to_bytes(pooling.from_bytes(stored)) == stored


@pytest.mark.parametrize("name", ["attention", "three channels"])
@given(data=st.data())
def test_attention_sums_to_one_in_each_channel(name: str, data: st.DataObject) -> None:
    pooling, bag = aggregator(name), data.draw(bags(name))
    state = pooling.update(pooling.initial_state(), bag)
    weights = pooling.attention(state, bag)
    assert weights is not None
    assert weights.shape == bag.attention_logits.shape
    assert weights.sum(axis=0) == pytest.approx(np.ones(CHANNELS[name]), abs=1e-5)


@pytest.mark.parametrize("name", ["mean", "max"])
def test_mean_and_max_have_no_attention(name: str) -> None:
    pooling = aggregator(name)
    empty = InstanceBatch(np.empty((0, WIDTH), np.float32), np.empty((0, 0), np.float32))
    assert pooling.attention(pooling.initial_state(), empty) is None


@pytest.mark.parametrize("name", CHANNELS)
def test_a_batch_of_another_width_is_refused(name: str) -> None:
    pooling = aggregator(name)
    batch = InstanceBatch(
        np.ones((2, WIDTH + 1), np.float32), np.ones((2, CHANNELS[name]), np.float32)
    )
    with pytest.raises(InvalidInstancesError):
        pooling.update(pooling.initial_state(), batch)


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x93NUMPY\x01\x00"])
def test_bytes_that_are_no_state_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(StoreError):
        aggregator(name).from_bytes(data)


@pytest.mark.parametrize("name", CHANNELS)
def test_scoring_many_states_at_once_is_scoring_each(name: str) -> None:
    pooling = aggregator(name)
    rng = np.random.default_rng(1)
    states = [pooling.initial_state()]
    for count in (1, 4, 9):
        batch = InstanceBatch(
            rng.standard_normal((count, WIDTH)).astype(np.float32),
            rng.standard_normal((count, CHANNELS[name])).astype(np.float32),
        )
        states.append(pooling.update(states[-1], batch))
    together = pooling.scores(states)
    assert together[0] is None
    assert together[1:] == [pooling.score(state) for state in states[1:]]


def test_large_logits_neither_overflow_nor_lose_the_largest() -> None:
    pooling = aggregator("attention")
    logits = np.asarray([[-900.0], [0.0], [1800.0], [1799.0]], np.float32)
    values = np.eye(4, WIDTH, dtype=np.float32)
    state = pooling.update(pooling.initial_state(), InstanceBatch(values, logits))
    share = 1 / (1 + np.exp(-1.0))
    assert_close(pooled(pooling, state), np.asarray([0.0, 0.0, share]))
