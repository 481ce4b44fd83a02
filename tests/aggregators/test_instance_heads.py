"""DSMIL, DTFD and top-instance heads: any split, order, merge tree and removal is the batch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.aggregators import Classifier
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.errors import EmptyBagError, InvalidInstancesError, UsageError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.types import Float32Array, InstanceBatch, InstanceOrder, Int64Array

torch = pytest.importorskip("torch")
registry = pytest.importorskip("edge_mil_export.architectures.registry")

FEATURES, CLASSES = 6, {"mil_fc": 2}
DTFD = {"groups": "3", "instances": "7"}
HEADS: dict[str, tuple[str, dict[str, str]]] = {
    "dsmil": ("dsmil", {}),
    "dsmil average": ("dsmil", {"score": "average"}),
    "dsmil v relu": ("dsmil", {"value_activation": "relu"}),
    "dsmil v none": ("dsmil", {"value_activation": "none"}),
    "dsmil linear q": ("dsmil", {}),
    "dsmil IClassifier": ("dsmil", {}),
    "mhim_dsmil": ("mhim_dsmil", {"activation": "gelu"}),
    "mil_fc": ("mil_fc", {}),
    "mil_fc_mc": ("mil_fc_mc", {}),
    "dtfd afs": ("dtfd", DTFD | {"distill": "afs"}),
    "dtfd maxs": ("dtfd", DTFD | {"distill": "maxs"}),
    "dtfd maxmins": ("dtfd", DTFD | {"distill": "maxmins"}),
    "dtfd rounds": ("dtfd", DTFD | {"distill": "afs", "mean_inference": "3"}),
}
HIDDEN_VALUES = 5
TOLERANCE = 1e-5
"""Of max(1, the largest logit): what float32 products differ by in another order."""


class TorchClassify:
    """`classify.onnx` in torch."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def run(self, arrays: Any) -> dict[str, Float32Array]:
        """Return logits of pooled vectors."""
        with torch.no_grad():
            return {"logits": self.module.classify(torch.from_numpy(arrays["pooled"])).numpy()}


def dsmil_layout(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return a fresh DSMIL in another of its layouts: `aggregators.md`, 4.6."""
    if " v " in name:
        state["b_classifier.v.1.weight"] = torch.randn(HIDDEN_VALUES, FEATURES)
        state["b_classifier.v.1.bias"] = torch.randn(HIDDEN_VALUES)
        state["b_classifier.fcc.weight"] = torch.randn(3, 3, HIDDEN_VALUES)
    if "linear q" in name:
        second = [key for key in state if key.startswith("b_classifier.q.2")]
        state = {key: value for key, value in state.items() if key not in second}
        state = {key.replace("q.0", "q"): value for key, value in state.items()}
    if "IClassifier" in name:  # its own extractor is in the file, and its layer has no number
        state = {key.replace("fc.0", "fc"): value for key, value in state.items()}
        state["i_classifier.feature_extractor.conv1.weight"] = torch.randn(4, 3, 7, 7)
        state["i_classifier.feature_extractor.bn1.num_batches_tracked"] = torch.tensor(3)
    return state


@cache
def head(name: str) -> tuple[Any, Any]:
    architecture, options = HEADS[name]
    torch.manual_seed(0)
    chosen = next(a for a in registry._candidates() if a.name == architecture)
    state = chosen.build.fresh(FEATURES, CLASSES.get(architecture, 3))
    state = dsmil_layout(name, state)
    # Fresh layers answer almost the same to every bag; stronger ones would show a mistake.
    state = {key: value * 2 if value.ndim > 1 else value for key, value in state.items()}
    _, module, complete = registry.build_head(state, architecture, options, file="fresh")
    network: Any = TorchClassify(module) if module.has_classifier else None
    classes = tuple(str(number) for number in range(module.outputs))
    kind = Classifier(classes, "softmax", network)
    sizes = (module.feature_dim, module.value_dim, module.channels)
    parts = Parts(architecture, complete, *sizes, kind, {}, module.arrays())
    return module, build_aggregator(module.pooling, parts)


def bag(name: str, count: int, seed: int, scale: float = 1.0) -> tuple[Float32Array, InstanceBatch]:
    module, _ = head(name)
    rng = np.random.default_rng(seed)
    features = (scale * rng.standard_normal((count, FEATURES))).astype(np.float32)
    with torch.no_grad():
        values, logits, *extra = module.attend(torch.from_numpy(features))
    kept = logits.numpy() if module.channels and module.logits_in_attend else np.empty((count, 0))
    named = dict(zip(module.extra_outputs, (e.numpy() for e in extra), strict=True))
    instance_order = grid_order([(row % 5, row // 5) for row in range(count)])
    dealt = InstanceOrder(instance_order.keys, instance_order.cells, np.arange(count) % 3)
    return features, InstanceBatch(values.numpy(), kept.astype(np.float32), named, dealt)


def logits(name: str, state: Any) -> Any:
    return np.asarray(head(name)[1].score(state).logits)


def fold(name: str, batch: InstanceBatch, rows: Int64Array) -> Any:
    aggregator = head(name)[1]
    return aggregator.update(aggregator.initial_state(), batch.take(rows))


def assert_close(got: Any, want: Any, tolerance: float = TOLERANCE) -> None:
    assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", [n for n in HEADS if n != "dtfd rounds"])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_batch_is_the_formula_in_torch(name: str, count: int) -> None:
    features, batch = bag(name, count, count)
    with torch.no_grad():
        want = head(name)[0](torch.from_numpy(features)).numpy()
    assert_close(logits(name, fold(name, batch, np.arange(count))), want)


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_split_and_merge_tree_is_the_batch(name: str, data: st.DataObject) -> None:
    aggregator = head(name)[1]
    count, scale = data.draw(st.integers(1, 30)), data.draw(st.sampled_from([0.0, 1.0, 200.0]))
    _, batch = bag(name, count, data.draw(st.integers(0, 999)), scale)
    order = np.asarray(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    parts = np.split(order, cuts)
    states = [fold(name, batch, part) for part in parts]
    gone = data.draw(st.integers(0, len(parts) - 1))
    left = aggregator.initial_state()
    for at, state in enumerate(states):
        left = left if at == gone else aggregator.merge(left, state)
    others = np.concatenate([p for at, p in enumerate(parts) if at != gone] or [parts[0][:0]])
    if len(others):
        assert_close(logits(name, left), logits(name, fold(name, batch, np.sort(others))))
    while len(states) > 1:
        at = data.draw(st.integers(0, len(states) - 2))
        right, first = states.pop(data.draw(st.integers(at + 1, len(states) - 1))), states.pop(at)
        states.append(aggregator.merge(first, right))
    assert aggregator.instances(states[0]) == count
    assert_close(logits(name, states[0]), logits(name, fold(name, batch, np.arange(count))))
    stored = aggregator.to_bytes(states[0])
    assert aggregator.to_bytes(aggregator.from_bytes(stored)) == stored
    assert_close(logits(name, aggregator.from_bytes(stored)), logits(name, states[0]))


@pytest.mark.parametrize("name", HEADS)
def test_an_empty_bag_has_no_score(name: str) -> None:
    aggregator = head(name)[1]
    state = fold(name, bag(name, 3, 0)[1], np.arange(0))
    assert aggregator.scores([state]) == [None]
    with pytest.raises(EmptyBagError):
        aggregator.score(state)


def test_dtfd_refuses_fewer_instances_than_pseudo_bags() -> None:
    build = next(a for a in registry._candidates() if a.name == "dtfd").build
    for distill in ("maxs", "maxmins"):
        options = {"distill": distill, "groups": "4", "instances": "3"}
        with pytest.raises(UsageError, match="groups=4"):
            registry.build_head(build.fresh(FEATURES, 2), None, options, file="fresh")


def test_a_pseudo_bag_that_the_head_does_not_have_is_refused() -> None:
    _, batch = bag("dtfd afs", 4, 0)
    assert batch.instance_order is not None
    instance_order = InstanceOrder(
        batch.instance_order.keys, batch.instance_order.cells, np.full(4, 3)
    )
    wrong = InstanceBatch(batch.values, batch.attention_logits, batch.extra, instance_order)
    aggregator = head("dtfd afs")[1]
    with pytest.raises(InvalidInstancesError, match="0 to 2"):
        aggregator.update(aggregator.initial_state(), wrong)


def test_cells_fall_into_pseudo_bags_evenly_and_always_the_same() -> None:
    from edge_mil.aggregators.mergeable.dtfd import cell_group

    cells = np.stack(np.meshgrid(np.arange(-50, 50), np.arange(50)), axis=-1).reshape(-1, 2)
    counts = np.bincount((cell_group(cells, 0) % np.uint64(4)).astype(np.int64), minlength=4)
    assert counts.min() > 1100
    assert (cell_group(cells[::-1], 0)[::-1] == cell_group(cells, 0)).all()
