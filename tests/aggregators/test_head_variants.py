"""What one head does and others do not: blocks, orders, tokens, seeds, survival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from aggregator_zoo import (  # noqa: F401 - a fixture is used by its name
    MHIM,
    RRT,
    Subject,
    build_subject,
    fresh,
    one_thread,
    subject,
    torch,
)

from edge_mil.aggregators.banked import bank as bank_module
from edge_mil.aggregators.whole_bag import ilra as ilra_module
from edge_mil.aggregators.whole_bag import wikg as wikg_module


def check_bag(tested: Subject, count: int, seed: int) -> None:
    """Compare the score of a whole bag with the head in torch."""
    features, rows = tested.features(count, seed), np.arange(count)
    tested.check(tested.state(features, rows), features, rows)


def want(architecture: str, options: Mapping[str, str], state: Mapping[str, Any]) -> Any:
    built = build_subject(architecture, options, state)
    return built.want(built.features(25, 8), np.arange(25))


@pytest.mark.parametrize("name", ["wikg 3", "ilra"])
def test_tiles_of_any_size_give_the_same_score(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikg_module, "QUERY_ROWS", 11)
    monkeypatch.setattr(wikg_module, "KEY_ROWS", 2)
    monkeypatch.setattr(wikg_module, "GATHERED", 500)
    monkeypatch.setattr(ilra_module, "ROWS", 9)
    check_bag(subject(name), 70, 2)


@pytest.mark.parametrize("name", ["hopfield 1 step", "hopfield 9 steps"])
def test_update_steps_over_many_blocks_that_grow_and_go_are_those_of_the_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "BLOCK", 8)
    tested, features = subject(name), subject(name).features(70, 9, 3.0)
    fields = np.random.default_rng(1).permutation(70).reshape(10, 7)
    states = [tested.aggregator.initial_state()]
    for number, field in enumerate(fields):
        states.append(tested.aggregator.merge(states[-1], tested.state(features, field)))
        tested.check(states[-1], features, fields[: number + 1].ravel())
    # Of four fields, without those that came after them.
    other = tested.aggregator.merge(states[4], tested.state(features, fields[8]))
    tested.check(other, features, fields[[0, 1, 2, 3, 8]].ravel())


def test_update_steps_move_the_queries() -> None:
    still = want("hopfield", {"heads": "2", "scaling": "1.5"}, fresh("hopfield"))
    tested = subject("hopfield 9 steps")
    moved = tested.want(tested.features(25, 8), np.arange(25))
    assert np.abs(still - moved).max() > 1e-3


def test_each_of_several_seeds_has_probabilities_of_its_own() -> None:
    state = fresh("ilra")
    state["pooling.S"] = torch.randn(1, 3, state["pooling.S"].shape[2])
    for number in range(2):
        key = f"gab_blocks.{number}.latent"
        state[key] = torch.randn(1, 3, state[key].shape[2])
    tested = build_subject("ilra", {"heads": "4"}, state)
    check_bag(tested, 20, 4)
    score = tested.aggregator.score(tested.state(tested.features(20, 4), np.arange(20)))
    sums = np.reshape(score.probabilities, (3, 2)).sum(axis=1)
    np.testing.assert_allclose(sums, np.ones(3), atol=1e-6)


def test_gated_attention_weighs_the_tokens_too() -> None:
    state = fresh("mhim_abmil")
    at = "online_encoder.attention"
    for key in [key for key in state if key.startswith(at)]:
        del state[key]
    torch.manual_seed(1)
    shapes = {"attention_a.0": (12, 64), "attention_b.0": (12, 64), "attention_c": (1, 12)}
    state |= {f"{at}.{name}.weight": torch.randn(shape) / 4 for name, shape in shapes.items()}
    check_bag(build_subject("mhim_abmil", MHIM | {"attention_activation": "tanh"}, state), 25, 8)


def test_merge_keys_are_ignored_unless_the_test_merges() -> None:
    options = {"activation": "gelu", "attention_activation": "gelu"}
    state = fresh("mhim_abmil")
    bare = {key: value for key, value in state.items() if not key.startswith("merge.")}
    plain = want("mhim_abmil", options, state)
    np.testing.assert_allclose(plain, want("mhim_abmil", options, bare), atol=1e-9)
    merged = want("mhim_abmil", options | {"merge_test": "true"}, state)
    assert np.abs(plain - merged).max() > 1e-3


@pytest.mark.parametrize("name", ["transmil later", "mhim_transmil", "mambamil", "rrtmil"])
def test_the_order_of_the_bag_matters_to_these(name: str) -> None:
    tested, rows = subject(name), np.arange(100)
    features = tested.features(100, 6)
    score = tested.aggregator.score(tested.state(features, rows)).logits
    other = tested.aggregator.score(tested.state(features[::-1].copy(), rows)).logits
    assert np.abs(np.asarray(score) - other).max() > 1e-4


def test_the_two_versions_of_nystrom_attention_differ() -> None:
    first, later = subject("transmil 0.0.9"), subject("transmil later")
    for size in (30, 961):
        features, rows = first.features(size, 7), np.arange(size)
        assert not np.allclose(first.want(features, rows), later.want(features, rows))


def test_gated_pooling_and_a_network_as_phi_are_the_formula_in_torch() -> None:
    state = fresh("rrtmil")
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
    check_bag(build_subject("rrtmil", RRT | {"attention_activation": "tanh"}, state), 90, 8)


@pytest.mark.parametrize("name", ["transmil later", "mhim_transmil", "mambamil", "rrtmil"])
def test_a_bag_of_many_regions_and_landmarks_is_the_formula_in_torch(name: str) -> None:
    check_bag(subject(name), 130, 3)


def test_survival_prints_hazards_a_curve_and_the_risk() -> None:
    rows = np.arange(20)
    for name in ("otsurv", "mambamil survival"):
        tested = subject(name)
        features = tested.features(20, 9)
        score = tested.aggregator.score(tested.state(features, rows))
        hazards = 1 / (1 + np.exp(-tested.want(features, rows)))
        np.testing.assert_allclose(score.hazards, hazards, atol=1e-5)
        np.testing.assert_allclose(score.survival, np.cumprod(1 - hazards), atol=1e-5)
        assert score.value == pytest.approx(-np.cumprod(1 - hazards).sum(), abs=1e-5)
        assert score.probabilities == ()
    cox = build_subject("otsurv", {"survival": "cox"}, fresh("otsurv"))
    features = cox.features(20, 9)
    score = cox.aggregator.score(cox.state(features, rows))
    assert score.value == pytest.approx(np.exp(cox.want(features, rows)[0]), rel=1e-5)
    assert score.hazards == ()
