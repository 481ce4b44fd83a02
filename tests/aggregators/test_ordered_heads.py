"""Heads that see the bag in an order, and OTSurv: the laws, and the same formulas in torch."""

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
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.errors import EmptyBagError, UsageError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, InstanceBatch, Int64Array

torch = pytest.importorskip("torch")
registry = pytest.importorskip("edge_mil_export.architectures.registry")

FEATURES = 5
MHIM = {"activation": "gelu"}
SR = {"activation": "relu", "scan": "sr", "rate": "3"}
RRT = {
    "activation": "relu",
    "attention_activation": "relu",
    "region_num": "8",
    "all_shortcut": "true",
}
HEADS: dict[str, tuple[str, dict[str, str]]] = {
    "transmil 0.0.9": ("transmil", {"nystrom": "0.0.9"}),
    "transmil later": ("transmil", {"nystrom": "later"}),
    "mhim_transmil": ("mhim_transmil", MHIM),
    "mambamil": ("mambamil", SR),
    "mambamil rate 10": ("mambamil", SR | {"rate": "10", "survival": "nll"}),
    "rrtmil": ("rrtmil", RRT),
    "rrtmil 3 regions": (
        "rrtmil",
        RRT
        | {"region_num": "3", "all_shortcut": "false", "attention_activation": "gelu"}
        | {"crmsa_heads": "4"},
    ),
    "otsurv": ("otsurv", {"survival": "nll"}),
    "otsurv early": ("otsurv", {"survival": "nll", "rho": "0.4"}),
}
SIZES = (1, 2, 3, 7, 8, 9, 31, 63, 64, 65, 130)
TOLERANCE = 1e-5
"""Of max(1, the largest logit): float32 products, summed in other orders."""


@dataclass(frozen=True)
class Built:
    """A head in torch, and what a device makes of its arrays."""

    module: Any
    aggregator: Aggregator[Any]

    def values(self, features: Float32Array) -> Float32Array:
        """Return what `attend` gives."""
        with torch.no_grad():
            found: Float32Array = self.module.attend(torch.from_numpy(features))[0].numpy()
        return found

    def logits(self, features: Float32Array) -> Float32Array:
        """Return the batch result in torch, in float64."""
        module = self.module.double()
        with torch.no_grad():
            found: Float32Array = module(torch.from_numpy(features).double()).numpy()
        self.module.float()
        return found


def build(architecture: str, options: Mapping[str, str], state: Mapping[str, Any]) -> Built:
    name, module, complete = registry.build_head(state, architecture, options, file="fresh")
    classes = tuple(str(number) for number in range(module.outputs))
    head = Classifier(classes, "none", None, module.kind, complete.get("survival", "nll"))
    sizes = (module.feature_dim, module.value_dim, module.channels)
    parts = Parts(name, complete, *sizes, head, {}, module.arrays())
    return Built(module, build_aggregator(module.pooling, parts))


def fresh(architecture: str, options: Mapping[str, str], seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    chosen = next(a for a in registry._candidates() if a.name == architecture)
    found: dict[str, Any] = chosen.build.fresh(FEATURES, 2)
    # Fresh layers answer almost the same to every bag; stronger ones would show a mistake.
    return {k: v * 2 if v.ndim > 1 and "A_" not in k else v for k, v in found.items()}


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
    return build(architecture, options, fresh(architecture, options))


def features(count: int, seed: int, *, scale: float = 1.0) -> Float32Array:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((count, FEATURES))).astype(np.float32)


def batch(built: Built, rows: Float32Array, chosen: Int64Array) -> InstanceBatch:
    """Return some of the rows; their places are in the order of the rows."""
    instance_order = grid_order([(int(row) % 4, int(row) // 4) for row in chosen])
    values = built.values(rows)[chosen]
    return InstanceBatch(
        values, np.empty((len(chosen), 0), np.float32), instance_order=instance_order
    )


def assert_close(got: Any, want: Any, tolerance: float = TOLERANCE) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max())


def state_of(built: Built, rows: Float32Array, chosen: Int64Array) -> Any:
    aggregator = built.aggregator
    return aggregator.update(aggregator.initial_state(), batch(built, rows, chosen))


@pytest.mark.parametrize("name", HEADS)
def test_every_size_is_the_formula_in_torch(name: str) -> None:
    built = head(name)
    for size in SIZES:
        rows = features(size, size)
        score = built.aggregator.score(state_of(built, rows, np.arange(size)))
        assert_close(score.logits, built.logits(rows))
        assert score.instances == size


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_split_order_and_merge_tree_is_the_batch(name: str, data: st.DataObject) -> None:
    built = head(name)
    count = data.draw(st.integers(1, 40))
    rows = features(count, data.draw(st.integers(0, 1000)))
    order = np.asarray(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    states = [state_of(built, rows, part) for part in np.split(order, cuts)]
    while len(states) > 1:
        at = data.draw(st.integers(0, len(states) - 2))
        other = data.draw(st.integers(at + 1, len(states) - 1))
        right, left = states.pop(other), states.pop(at)
        states.append(built.aggregator.merge(left, right))
    score = built.aggregator.score(states[0])
    whole = built.aggregator.score(state_of(built, rows, np.arange(count)))
    assert score == whole
    assert_close(score.logits, built.logits(rows))
    stored = built.aggregator.to_bytes(states[0])
    assert built.aggregator.score(built.aggregator.from_bytes(stored)) == whole


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_removed_or_replaced_field_leaves_the_batch_of_what_is_held(
    name: str, data: st.DataObject
) -> None:
    built = head(name)
    sizes = data.draw(st.lists(st.integers(1, 8), min_size=2, max_size=5))
    rows = features(sum(sizes), data.draw(st.integers(0, 1000)))
    fields = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    gone = data.draw(st.integers(0, len(fields) - 1))
    kept = fields[gone][: data.draw(st.integers(0, len(fields[gone]) - 1))]
    state = built.aggregator.initial_state()
    for number, field in enumerate(fields):
        held = kept if number == gone else field
        state = built.aggregator.merge(state, state_of(built, rows, held))
    left = np.concatenate([f for i, f in enumerate(fields) if i != gone] + [kept])
    assert_close(built.aggregator.score(state).logits, built.logits(rows[np.sort(left)]))


@pytest.mark.parametrize("name", HEADS)
def test_large_features_and_identical_instances_score_as_the_formula_does(name: str) -> None:
    built = head(name)
    for count in (1, 5, 40):
        large = features(count, 3, scale=300)
        score = built.aggregator.score(state_of(built, large, np.arange(count)))
        assert_close(score.logits, built.logits(large), 1e-4)
        alike = np.repeat(features(1, 4), count, axis=0)
        score = built.aggregator.score(state_of(built, alike, np.arange(count)))
        assert_close(score.logits, built.logits(alike))


@pytest.mark.parametrize("name", HEADS)
def test_an_empty_bag_has_no_score_and_attention_sums_to_one(name: str) -> None:
    built = head(name)
    aggregator = built.aggregator
    with pytest.raises(EmptyBagError):
        aggregator.score(aggregator.initial_state())
    assert aggregator.scores([aggregator.initial_state()]) == [None]
    rows = features(12, 5)
    state = state_of(built, rows, np.arange(12)[::-1])
    weights = aggregator.attention(state, batch(built, rows, np.arange(12)))
    assert (weights is not None) == (built.module.channels > 0)
    if weights is not None:
        assert_close(weights.sum(axis=0), np.ones(1))


@pytest.mark.parametrize("name", ["transmil later", "mhim_transmil", "mambamil", "rrtmil"])
def test_the_order_of_the_bag_matters_to_these(name: str) -> None:
    built = head(name)
    rows = features(100, 6)
    score = built.aggregator.score(state_of(built, rows, np.arange(100))).logits
    other = built.aggregator.score(state_of(built, rows[::-1].copy(), np.arange(100))).logits
    assert np.abs(np.asarray(score) - other).max() > 1e-4


def test_the_two_versions_of_nystrom_attention_differ() -> None:
    first, later = head("transmil 0.0.9"), head("transmil later")
    for size in (30, 961):
        rows = features(size, 7)
        assert not np.allclose(first.logits(rows), later.logits(rows))


def test_gated_pooling_and_a_network_as_phi_are_the_formula_in_torch() -> None:
    state = fresh("rrtmil", RRT)
    for key in [key for key in state if "pool_fn" in key or key.endswith("phi")]:
        del state[key]
    torch.manual_seed(1)
    pool, phi = "pool_fn.attention", "online_encoder.cr_msa.attn.phi"
    shapes = {
        f"{phi}.0.weight": (16, 64),
        f"{phi}.2.weight": (3, 16),
        f"{pool}.attention_a.0.weight": (12, 64),
        f"{pool}.attention_b.0.weight": (12, 64),
        f"{pool}.attention_b.0.bias": (12,),
        f"{pool}.attention_a.0.bias": (12,),
        f"{pool}.attention_c.weight": (1, 12),
    }
    state |= {key: torch.randn(shape) / 4 for key, shape in shapes.items()}
    built = build("rrtmil", RRT | {"attention_activation": "tanh"}, state)
    rows = features(90, 8)
    score = built.aggregator.score(state_of(built, rows, np.arange(90)))
    assert_close(score.logits, built.logits(rows))


def test_survival_prints_hazards_a_curve_and_the_risk() -> None:
    rows = features(20, 9)
    for name in ("otsurv", "mambamil rate 10"):
        built = head(name)
        score = built.aggregator.score(state_of(built, rows, np.arange(20)))
        hazards = 1 / (1 + np.exp(-built.logits(rows)))
        assert_close(score.hazards, hazards)
        assert_close(score.survival, np.cumprod(1 - hazards))
        assert score.value == pytest.approx(-np.cumprod(1 - hazards).sum(), abs=1e-5)
        assert score.probabilities == ()
    options = {"survival": "cox"}
    cox = build("otsurv", options, fresh("otsurv", options))
    score = cox.aggregator.score(state_of(cox, rows, np.arange(20)))
    assert score.value == pytest.approx(np.exp(cox.logits(rows)[0]), rel=1e-5)
    assert score.hazards == ()


@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_every_parameter(name: str) -> None:
    architecture, options = HEADS[name]
    module = build(architecture, options, fresh(architecture, options)).module
    module.requires_grad_(requires_grad=True)
    module(torch.from_numpy(features(30, 10))).pow(2).sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize(
    ("architecture", "options", "sentence"),
    [
        ("mambamil", SR | {"scan": "bi"}, "another model"),
        ("mambamil", {"activation": "relu", "scan": "sr"}, "rate="),
        ("otsurv", {"survival": "nll", "rho": "1.5"}, "more than all of the bag"),
        ("otsurv", {}, "survival=nll or survival=cox"),
        ("transmil", {}, "nystrom=0.0.9 or nystrom=later"),
        ("rrtmil", {"activation": "relu"}, "attention_activation="),
    ],
)
def test_what_the_file_cannot_tell_is_asked_for(
    architecture: str, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(architecture, options, fresh(architecture, options))
