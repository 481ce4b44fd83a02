"""DTFD-MIL: pseudo-bags, and the instances that MaxS and MaxMinS select."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slow_references
from aggregator_zoo import dtfd, subject, torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.aggregators import Classifier
from edge_mil.aggregators.mergeable.dtfd import cell_group
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.errors import InvalidInstancesError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.types import InstanceBatch, InstanceOrder

WIDTH, HIDDEN = 3, 4
SPREADS = (0.0, 1.0, 30.0, 400.0)
"""Of the attention logits; at 400 nearly all shares are zero in float64."""


def second_tier(classes: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(classes)
    shapes = {
        "branch": (HIDDEN, WIDTH),
        "gate": (HIDDEN, WIDTH),
        "attention": (1, HIDDEN),
        "classifier": (classes, WIDTH),
    }
    arrays = {f"{n}.weight": rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return arrays | {f"{n}.bias": np.zeros(s[0], dtype=np.float32) for n, s in shapes.items()}


def made(classes: int, distill: str, groups: int, each: int) -> Any:
    options = {
        "distill": distill,
        "groups": groups,
        "instances": groups * each,
        "mean_inference": 1,
    }
    kind = Classifier(tuple(map(str, range(classes))), "softmax", None)
    parts = Parts("dtfd", options, 9, WIDTH, 1, kind, {}, second_tier(classes))
    return build_aggregator("dtfd", parts)


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
    order = grid_order([(row % 7, row // 7) for row in range(count)])
    dealt = InstanceOrder(order.keys, order.cells, rng.integers(0, groups, count))
    return InstanceBatch(single[0], single[1], {"class_scores": single[2]}, dealt)


def state_of(aggregator: Any, batch: InstanceBatch) -> Any:
    return aggregator.update(aggregator.initial_state(), batch)


@pytest.mark.parametrize("distill", ["maxs", "maxmins"])
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_instances_that_are_selected_are_those_of_the_formula(
    classes: int, distill: str, data: st.DataObject
) -> None:
    groups, each = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    count, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 10_000))
    batch = bag(classes, count, groups, seed, data.draw(st.sampled_from(SPREADS)))
    assert batch.instance_order is not None
    assert batch.instance_order.groups is not None
    want = slow_references.dtfd(
        batch.embeddings.astype(float),
        batch.attention_logits[:, 0].astype(float),
        batch.extra["class_scores"].astype(float),
        batch.instance_order.groups,
        {name: array.astype(float) for name, array in second_tier(classes).items()},
        distill=distill,
        count=groups,
        each=each,
    )
    aggregator = made(classes, distill, groups, each)
    cut = data.draw(st.integers(0, count))
    parts = [batch.take(np.arange(*ends)) for ends in ((cut, count), (0, cut))]
    state = aggregator.merge(*(state_of(aggregator, part) for part in parts))
    np.testing.assert_allclose(aggregator.score(state).logits, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{"distill": "afs"}, {"distill": "maxmins"}])
def test_the_head_in_torch_deals_the_rows_to_the_pseudo_bags_in_turn(
    options: dict[str, str],
) -> None:
    tested = dtfd(3, **options)
    for count in (1, 2, 7, 40):
        features = tested.features(count, count)
        with torch.no_grad():
            found = tested.module(torch.from_numpy(features)).numpy()
        np.testing.assert_allclose(
            found, tested.want(features, np.arange(count)), rtol=1e-5, atol=1e-5
        )


def test_with_two_classes_it_is_mergeable_and_its_state_does_not_grow() -> None:
    aggregator = made(2, "maxmins", 3, 2)
    small, large = (state_of(aggregator, bag(2, count, 3, 1)) for count in (60, 3000))
    assert aggregator.incremental == "mergeable"
    assert len(aggregator.to_bytes(large)) <= len(aggregator.to_bytes(small)) + 64


def test_with_three_classes_few_instances_can_still_be_selected() -> None:
    aggregator = made(3, "maxs", 3, 2)
    state = state_of(aggregator, bag(3, 5000, 3, 1))
    assert aggregator.incremental == "banked"
    assert len(state.sides[0].rows) < 500


def test_the_one_instance_of_a_pseudo_bag_is_its_top_and_its_bottom() -> None:
    state = state_of(made(2, "maxmins", 1, 3), bag(2, 1, 1, 1))
    assert [len(side.keys) for side in state.sides] == [1, 1]


def test_a_pseudo_bag_that_the_head_does_not_have_is_refused() -> None:
    tested = subject("dtfd afs")
    batch = tested.batch(tested.features(4, 0), np.arange(4))
    assert batch.instance_order is not None
    order = InstanceOrder(batch.instance_order.keys, batch.instance_order.cells, np.full(4, 3))
    wrong = InstanceBatch(batch.embeddings, batch.attention_logits, batch.extra, order)
    with pytest.raises(InvalidInstancesError, match="0 to 2"):
        state_of(tested.aggregator, wrong)


def test_cells_fall_into_pseudo_bags_evenly_and_always_the_same() -> None:
    cells = np.stack(np.meshgrid(np.arange(-50, 50), np.arange(50)), axis=-1).reshape(-1, 2)
    found = (cell_group(cells, 0) % np.uint64(4)).astype(np.int64)
    assert np.bincount(found, minlength=4).min() > 1100
    slow = [slow_references.cell_group(x, y, 0, 4) for x, y in cells.tolist()]
    assert found.tolist() == slow
