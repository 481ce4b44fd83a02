"""What every aggregator promises: the laws of `edge_mil.protocols.Aggregator`, over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aggregator_zoo import MAKERS, Subject, held, one_thread, subject  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.aggregators.registry import BUILDERS
from edge_mil.errors import EmptyBagError, InvalidInstancesError, StoreError
from edge_mil.protocols import Aggregator
from edge_mil.types import InstanceBatch, Int64Array

every_aggregator = pytest.mark.parametrize("name", MAKERS)
SIZES = (1, 2, 3, 7, 8, 9, 31, 63, 64, 65)
"""Around the sides of grids, regions and landmarks."""
SCALES = (0.0, 1.0, 200.0)
"""Of the features: all instances alike, usual ones, and attention logits of some hundreds."""


def folded(aggregator: Aggregator[Any], states: list[Any]) -> Any:
    """Merge states one after the other."""
    whole = aggregator.initial_state()
    for state in states:
        whole = aggregator.merge(whole, state)
    return whole


@st.composite
def split_bags(draw: st.DrawFn, name: str) -> tuple[Any, list[Int64Array]]:
    """Draw the features of a bag that has a score, and its rows in parts, in any order."""
    tested = subject(name)
    count = draw(st.integers(tested.smallest, 30))
    features = tested.features(count, draw(st.integers(0, 999)), draw(st.sampled_from(SCALES)))
    order = np.asarray(draw(st.permutations(range(count))), dtype=np.int64)
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=5)))
    return features, np.split(order, cuts)


def test_the_suite_sees_every_pooling_that_a_bundle_can_name() -> None:
    assert {subject(name).pooling for name in MAKERS} == set(BUILDERS)


@every_aggregator
def test_the_score_is_that_of_the_reference(name: str) -> None:
    tested = subject(name)
    for count in (size for size in SIZES if size >= tested.smallest):
        rows = np.arange(count)
        for scale in (0.0, 1.0, 50.0):
            features = tested.features(count, count, scale)
            tested.check(tested.state(features, rows), features, rows)


@every_aggregator
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_order_split_and_merge_tree_is_the_whole_bag(name: str, data: st.DataObject) -> None:
    tested = subject(name)
    features, parts = data.draw(split_bags(name))
    states = [tested.state(features, part) for part in parts]
    while len(states) > 1:
        at = data.draw(st.integers(0, len(states) - 2))
        right = states.pop(data.draw(st.integers(at + 1, len(states) - 1)))
        states.append(tested.aggregator.merge(states.pop(at), right))
    tested.check(states[0], features, np.concatenate(parts))
    if tested.aggregator.incremental == "whole-bag":
        whole = tested.state(features, np.sort(np.concatenate(parts)))
        assert tested.aggregator.score(states[0]) == tested.aggregator.score(whole)


@every_aggregator
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_without_a_field_the_score_is_that_of_the_others(name: str, data: st.DataObject) -> None:
    tested = subject(name)
    features, parts = data.draw(split_bags(name))
    gone = data.draw(st.integers(0, len(parts) - 1))
    others = [part for at, part in enumerate(parts) if at != gone]
    rows = np.concatenate([*others, parts[gone][:0]])
    state = folded(tested.aggregator, [tested.state(features, part) for part in others])
    if len(rows) < tested.smallest:
        assert tested.aggregator.scores([state]) == [None]
    else:
        tested.check(state, features, rows)


@every_aggregator
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_update_is_merging_the_new_instances_and_changes_no_state(
    name: str, data: st.DataObject
) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features, parts = data.draw(split_bags(name))
    first, rest = parts[0], np.concatenate([*parts[1:], parts[0][:0]])
    state, new = tested.state(features, first), tested.state(features, rest)
    before = [aggregator.to_bytes(s) for s in (state, new)]
    updated = aggregator.update(state, tested.batch(features, rest))
    merged = aggregator.merge(state, new)
    assert aggregator.instances(updated) == aggregator.instances(merged)
    tested.check(updated, features, np.concatenate(parts))
    tested.check(merged, features, np.concatenate(parts))
    assert [aggregator.to_bytes(s) for s in (state, new)] == before


@every_aggregator
def test_the_empty_bag_changes_no_other_and_has_no_score(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features = tested.features(9, 0)
    empty = aggregator.initial_state()
    for none in (empty, tested.state(features, np.arange(0)), aggregator.merge(empty, empty)):
        assert aggregator.instances(none) == 0
        assert aggregator.scores([none, none]) == [None, None]
        with pytest.raises(EmptyBagError):
            aggregator.score(none)
    state = tested.state(features, np.arange(9))
    for merged in (aggregator.merge(state, empty), aggregator.merge(empty, state)):
        assert aggregator.to_bytes(merged) == aggregator.to_bytes(state)


@every_aggregator
def test_a_bag_below_the_smallest_has_no_score_yet(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features = tested.features(tested.smallest, 1)
    less = tested.state(features, np.arange(tested.smallest - 1))
    enough = tested.state(features, np.arange(tested.smallest))
    with pytest.raises(EmptyBagError):
        aggregator.score(less)
    assert [s is None for s in aggregator.scores([less, enough])] == [True, False]


@every_aggregator
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_state_survives_its_bytes_to_the_bit(name: str, data: st.DataObject) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features, parts = data.draw(split_bags(name))
    for state in (
        aggregator.initial_state(),
        folded(aggregator, [tested.state(features, part) for part in parts]),
    ):
        stored = aggregator.to_bytes(state)
        again = aggregator.from_bytes(stored)
        assert aggregator.to_bytes(again) == stored
        assert aggregator.instances(again) == aggregator.instances(state)
        if aggregator.instances(state):
            got, want = aggregator.score(again), aggregator.score(state)
            if aggregator.incremental == "banked":
                # Sums are made anew from the rows of the bank, so they are equal to rounding.
                np.testing.assert_allclose(held(got), held(want), rtol=1e-6, atol=1e-6)
            else:
                assert got == want


@every_aggregator
def test_bytes_that_are_no_state_are_refused(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    stored = aggregator.to_bytes(tested.state(tested.features(5, 2), np.arange(5)))
    for data in (b"", b"nonsense", b"\x93NUMPY\x01\x00", stored[: len(stored) // 2]):
        with pytest.raises(StoreError):
            aggregator.from_bytes(data)


@every_aggregator
def test_a_batch_of_another_head_is_refused(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    batch, start = tested.batch(tested.features(4, 3), np.arange(4)), aggregator.initial_state()
    wide = np.pad(batch.embeddings, ((0, 0), (0, 1)))
    order = batch.instance_order
    wrong = [InstanceBatch(wide, batch.attention_logits, batch.extra, order)]
    if batch.attention_logits.shape[1]:
        more = np.pad(batch.attention_logits, ((0, 0), (0, 1)))
        wrong.append(InstanceBatch(batch.embeddings, more, batch.extra, order))
    if batch.extra:
        wrong.append(InstanceBatch(batch.embeddings, batch.attention_logits, {}, order))
    if aggregator.needs_instance_order:
        wrong.append(InstanceBatch(batch.embeddings, batch.attention_logits, batch.extra))
    for refused in wrong:
        with pytest.raises(InvalidInstancesError):
            aggregator.update(start, refused)


@every_aggregator
def test_attention_sums_to_one_in_the_order_of_the_batch(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features = tested.features(12, 5)
    state = tested.state(features, np.arange(12)[::-1])
    weights = aggregator.attention(state, tested.batch(features, np.arange(12)))
    # The logits of MIL-Lab's DTFD are weights of any sign, and so no shares.
    has_shares = tested.channels > 0 and tested.pooling != "dtfd_linear"
    assert (weights is not None) == has_shares
    if weights is not None:
        assert weights.dtype == np.float32
        assert weights.shape == (12, tested.channels)
        assert weights.sum(axis=0) == pytest.approx(np.ones(tested.channels), abs=1e-5)
        turned = aggregator.attention(state, tested.batch(features, np.arange(12)[::-1]))
        np.testing.assert_allclose(turned, weights[::-1], atol=1e-6)


@every_aggregator
def test_scoring_many_states_at_once_is_scoring_each(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features = tested.features(20, 6)
    states = [tested.state(features, np.arange(count)) for count in (5, 0, 20, 9)]
    together = aggregator.scores(states)
    assert together[1] is None
    for state, found in zip(states, together, strict=True):
        if aggregator.instances(state):
            alone = held(aggregator.score(state))
            np.testing.assert_allclose(held(found), alone, rtol=1e-6, atol=1e-6)


@every_aggregator
def test_the_state_of_a_mergeable_head_does_not_grow_with_the_bag(name: str) -> None:
    tested, aggregator = subject(name), subject(name).aggregator
    features = tested.features(200, 7)
    small, large = (
        len(aggregator.to_bytes(tested.state(features, np.arange(n)))) for n in (60, 200)
    )
    assert aggregator.incremental in ("mergeable", "banked", "whole-bag")
    assert (small == large) == (aggregator.incremental == "mergeable")


def test_the_suite_would_find_an_aggregator_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: Subject = subject("attention")
    monkeypatch.setattr(type(tested.aggregator), "merge", lambda self, left, right: right)
    features = tested.features(8, 8)
    state = tested.aggregator.merge(
        tested.state(features, np.arange(4)), tested.state(features, np.arange(4, 8))
    )
    with pytest.raises(AssertionError):
        tested.check(state, features, np.arange(8))
