"""Multi-head, Hopfield, merged-token, ILRA and WiKG heads: the laws, and the formulas in torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.aggregators import Classifier
from edge_mil.aggregators.banked import bank as bank_module
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.aggregators.whole_bag import ilra as ilra_module
from edge_mil.aggregators.whole_bag import wikg as wikg_module
from edge_mil.errors import EmptyBagError, StoreError, UsageError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, InstanceBatch, Int64Array, SlideScore

torch = pytest.importorskip("torch")
registry = pytest.importorskip("edge_mil_export.architectures.registry")

FEATURES = 6
MHIM = {"activation": "gelu", "merge_test": "true"}
HEADS: dict[str, tuple[str, dict[str, str]]] = {
    "acmil_mha": ("acmil_mha", {}),
    "acmil_mha 4 heads": ("acmil_mha", {"heads": "4"}),
    "aem_mha": ("aem_mha", {"heads": "2"}),
    "hopfield": ("hopfield", {"heads": "3"}),
    "hopfield sharp": ("hopfield", {"heads": "2", "scaling": "2.5"}),
    "hopfield 1 step": ("hopfield", {"heads": "3", "update_steps_max": "1"}),
    "hopfield 9 steps": ("hopfield", {"heads": "2", "update_steps_max": "9", "scaling": "1.5"}),
    "mhim merged relu": ("mhim_abmil", MHIM | {"attention_activation": "relu"}),
    "mhim merged gelu": ("mhim_abmil", MHIM | {"attention_activation": "gelu"}),
    "mhim merged tanh": ("mhim_abmil", MHIM | {"attention_activation": "tanh"}),
    "ilra": ("ilra", {"heads": "4"}),
    "wikg": ("wikg", {"topk": "1"}),
    "wikg 3": ("wikg", {"topk": "3"}),
}
TOLERANCE = 1e-5


class TorchClassify:
    """The head's own `classify`, called as a device calls its graph."""

    inputs: Mapping[str, Any] = {}

    def __init__(self, module: Any) -> None:
        self.module = module

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Float32Array]:
        """Return the logits."""
        with torch.no_grad():
            found = self.module.classify(torch.from_numpy(arrays["pooled"]))
        return {"logits": found.numpy()}

    def close(self) -> None:
        """Hold nothing."""


@dataclass(frozen=True)
class Built:
    """A head in torch, and what a device makes of its arrays."""

    module: Any
    aggregator: Aggregator[Any]
    smallest: int

    def batch(self, rows: Float32Array, chosen: Int64Array) -> InstanceBatch:
        """Return some of the rows; their places are in the order of the rows."""
        with torch.no_grad():
            values, logits, *extra = (
                part.numpy() for part in self.module.attend(torch.from_numpy(rows[chosen]))
            )
        if not (self.module.channels and self.module.logits_in_attend):
            logits = np.empty((len(chosen), 0), np.float32)
        named = dict(zip(self.module.extra_outputs, extra, strict=True))
        instance_order = grid_order([(int(row) % 4, int(row) // 4) for row in chosen])
        return InstanceBatch(values, logits, named, instance_order)

    def state(self, rows: Float32Array, chosen: Int64Array) -> Any:
        """Return the state of some of the rows."""
        aggregator = self.aggregator
        return aggregator.update(aggregator.initial_state(), self.batch(rows, chosen))

    def want(self, features: Float32Array) -> Float32Array:
        """Return the batch result in torch, in float64."""
        module = self.module.double()
        with torch.no_grad():
            found: Float32Array = module(torch.from_numpy(features).double()).numpy()
        self.module.float()
        return found


def build(architecture: str, options: Mapping[str, str], state: Mapping[str, Any]) -> Built:
    name, module, complete = registry.build_head(state, architecture, options, file="fresh")
    classes = tuple(str(number) for number in range(module.outputs))
    network = TorchClassify(module) if module.has_classifier else None
    head = Classifier(classes, "softmax", network, module.kind)
    sizes = (module.feature_dim, module.value_dim, module.channels)
    parts = Parts(name, complete, *sizes, head, {}, module.arrays())
    smallest = int(complete.get("topk", 1))
    return Built(module, build_aggregator(module.pooling, parts), smallest)


def fresh(architecture: str, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    chosen = next(a for a in registry._candidates() if a.name == architecture)
    found: dict[str, Any] = chosen.build.fresh(FEATURES, 2)
    if "q" in found:  # published queries start at almost zero
        found["q"] = torch.randn_like(found["q"])
    if "pooling_weights" in found:
        found["pooling_weights"] = torch.randn(1, 3, FEATURES)
    return {k: v * 2 if v.ndim > 1 else v for k, v in found.items()}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny layers: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def head(name: str) -> Built:
    architecture, options = HEADS[name]
    return build(architecture, options, fresh(architecture))


def features(count: int, seed: int, *, scale: float = 1.0) -> Float32Array:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((count, FEATURES))).astype(np.float32)


def numbers(score: SlideScore | None) -> tuple[float, ...]:
    assert score is not None
    return score.pooled or score.logits


def assert_close(got: Any, want: Any, tolerance: float = TOLERANCE) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("count", [3, 4, 9, 65])
def test_the_score_is_that_of_the_formula_in_torch(name: str, count: int) -> None:
    built = head(name)
    rows = features(count, count)
    score = built.aggregator.score(built.state(rows, np.arange(count)))
    assert score.instances == count
    assert_close(numbers(score), built.want(rows))


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_split_order_and_merge_tree_gives_the_batch(name: str, data: st.DataObject) -> None:
    built = head(name)
    aggregator = built.aggregator
    count = data.draw(st.integers(3, 30))
    rows = features(count, data.draw(st.integers(0, 1000)))
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=4)))
    states = [built.state(rows, part) for part in np.split(order, cuts)]
    states = [aggregator.from_bytes(aggregator.to_bytes(state)) for state in states]
    while len(states) > 1:
        at = data.draw(st.integers(0, len(states) - 2))
        pair = states.pop(at), states.pop(at)
        left, right = data.draw(st.permutations(pair))
        states.append(aggregator.merge(left, right))
    whole = aggregator.merge(aggregator.initial_state(), states[0])
    assert aggregator.instances(whole) == count
    assert_close(numbers(aggregator.score(whole)), built.want(rows))
    stored = aggregator.from_bytes(aggregator.to_bytes(whole))
    assert aggregator.score(stored) == aggregator.score(whole)
    assert aggregator.to_bytes(stored) == aggregator.to_bytes(whole)


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_removed_or_replaced_field_leaves_the_batch_of_what_is_held(
    name: str, data: st.DataObject
) -> None:
    built = head(name)
    sizes = data.draw(st.lists(st.integers(3, 8), min_size=2, max_size=5))
    rows = features(sum(sizes), data.draw(st.integers(0, 1000)))
    fields = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    gone = data.draw(st.integers(0, len(fields) - 1))
    kept = fields[gone][: data.draw(st.integers(0, len(fields[gone]) - 1))]
    state = built.aggregator.initial_state()
    for number, field in enumerate(fields):
        held = kept if number == gone else field
        state = built.aggregator.merge(state, built.state(rows, held))
    left = np.concatenate([f for i, f in enumerate(fields) if i != gone] + [kept])
    assert_close(numbers(built.aggregator.score(state)), built.want(rows[np.sort(left)]))


@pytest.mark.parametrize("name", HEADS)
def test_large_features_and_identical_instances_score_as_the_formula_does(name: str) -> None:
    built = head(name)
    for count in (1, 5, 40):
        if count < built.smallest:
            continue
        large = features(count, 3, scale=300)
        score = built.aggregator.score(built.state(large, np.arange(count)))
        assert_close(numbers(score), built.want(large), 1e-4)
        alike = np.repeat(features(1, 4), count, axis=0)
        score = built.aggregator.score(built.state(alike, np.arange(count)))
        assert_close(numbers(score), built.want(alike))


@pytest.mark.parametrize("name", HEADS)
def test_an_empty_bag_has_no_score_and_attention_sums_to_one(name: str) -> None:
    built = head(name)
    aggregator = built.aggregator
    with pytest.raises(EmptyBagError):
        aggregator.score(aggregator.initial_state())
    assert aggregator.scores([aggregator.initial_state()]) == [None]
    with pytest.raises(StoreError):
        aggregator.from_bytes(b"no state")
    rows = features(12, 5)
    weights = aggregator.attention(
        built.state(rows, np.arange(12)[::-1]), built.batch(rows, np.arange(12))
    )
    assert (weights is not None) == (built.module.channels > 0)
    if weights is not None:
        assert weights.shape == (12, built.module.channels)
        assert_close(weights.sum(axis=0), np.ones(built.module.channels))


@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_every_parameter(name: str) -> None:
    architecture, options = HEADS[name]
    module = build(architecture, options, fresh(architecture)).module
    module.requires_grad_(requires_grad=True)
    module(torch.from_numpy(features(30, 10))).pow(2).sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_a_bag_below_topk_has_no_score_yet() -> None:
    built = head("wikg 3")
    rows = features(3, 1)
    two = built.state(rows, np.arange(2))
    assert built.aggregator.scores([two]) == [None]
    assert built.aggregator.attention(two, built.batch(rows, np.arange(2))) is None
    with pytest.raises(EmptyBagError):
        built.aggregator.score(two)


def test_tiles_of_any_size_give_the_same_graph_and_score(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = features(70, 2)
    for name in ("wikg 3", "ilra"):
        whole = head(name).want(rows)
        with monkeypatch.context() as patch:
            patch.setattr(wikg_module, "QUERY_ROWS", 11)
            patch.setattr(wikg_module, "KEY_ROWS", 2)
            patch.setattr(wikg_module, "GATHERED", 500)
            patch.setattr(ilra_module, "ROWS", 9)
            score = head(name).aggregator.score(head(name).state(rows, np.arange(70)))
        assert_close(numbers(score), whole)


@pytest.mark.parametrize("name", ["hopfield 1 step", "hopfield 9 steps"])
def test_update_steps_over_many_blocks_that_grow_and_go_are_those_of_the_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "BLOCK", 8)
    built = head(name)
    aggregator = built.aggregator
    rows = features(70, 9, scale=3)
    fields = np.random.default_rng(1).permutation(70).reshape(10, 7)
    states = [aggregator.initial_state()]
    for number, field in enumerate(fields):
        states.append(aggregator.merge(states[-1], built.state(rows, field)))
        want = built.want(rows[np.sort(fields[: number + 1].ravel())])
        assert_close(numbers(aggregator.score(states[-1])), want)
    # Of four fields, without those that came after them.
    other = aggregator.merge(states[4], built.state(rows, fields[8]))
    want = built.want(rows[np.sort(fields[[0, 1, 2, 3, 8]].ravel())])
    assert_close(numbers(aggregator.score(other)), want)


def test_each_of_several_seeds_has_probabilities_of_its_own() -> None:
    state = fresh("ilra")
    state["pooling.S"] = torch.randn(1, 3, state["pooling.S"].shape[2])
    for number in range(2):
        key = f"gab_blocks.{number}.latent"
        state[key] = torch.randn(1, 3, state[key].shape[2])
    built = build("ilra", {"heads": "4"}, state)
    rows = features(20, 4)
    score = built.aggregator.score(built.state(rows, np.arange(20)))
    assert_close(score.logits, built.want(rows))
    assert_close(np.reshape(score.probabilities, (3, 2)).sum(axis=1), np.ones(3))


def test_gated_attention_weighs_the_tokens_too() -> None:
    state = fresh("mhim_abmil")
    at = "online_encoder.attention"
    for key in [key for key in state if key.startswith(at)]:
        del state[key]
    torch.manual_seed(1)
    shapes = {"attention_a.0": (12, 64), "attention_b.0": (12, 64), "attention_c": (1, 12)}
    state |= {f"{at}.{name}.weight": torch.randn(shape) / 4 for name, shape in shapes.items()}
    built = build("mhim_abmil", MHIM | {"attention_activation": "tanh"}, state)
    rows = features(25, 8)
    assert_close(
        numbers(built.aggregator.score(built.state(rows, np.arange(25)))), built.want(rows)
    )


def test_merge_keys_are_ignored_unless_the_test_merges() -> None:
    options = {"activation": "gelu", "attention_activation": "gelu"}
    state = fresh("mhim_abmil")
    rows = features(25, 8)
    plain = build("mhim_abmil", options, state).want(rows)
    bare = {key: value for key, value in state.items() if not key.startswith("merge.")}
    assert_close(plain, build("mhim_abmil", options, bare).want(rows))
    assert np.abs(plain - head("mhim merged gelu").want(rows)).max() > 1e-3


def test_update_steps_move_the_queries() -> None:
    rows = features(25, 8)
    state = fresh("hopfield")
    still = build("hopfield", {"heads": "2", "scaling": "1.5"}, state).want(rows)
    assert np.abs(still - head("hopfield 9 steps").want(rows)).max() > 1e-3


@pytest.mark.parametrize(
    ("architecture", "options", "sentence"),
    [
        ("hopfield", {}, "heads="),
        ("hopfield", {"heads": "4"}, "does not divide"),
        ("hopfield", {"heads": "2", "update_steps_max": "-1"}, "0 or more"),
        ("hopfield", {"heads": "2", "scaling": "0"}, "positive number"),
        ("ilra", {}, "heads="),
        ("ilra", {"heads": "7"}, "does not divide"),
        ("wikg", {}, "topk="),
        ("wikg", {"topk": "0"}, "1 or more"),
        ("aem_mha", {"heads": "7"}, "does not divide"),
        ("mhim_abmil", MHIM, "attention_activation="),
    ],
)
def test_what_the_file_cannot_tell_is_asked_for(
    architecture: str, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(architecture, options, fresh(architecture))
