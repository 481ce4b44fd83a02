"""The audit: its bags are those of the paper, and it finds what is known beforehand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_mil.aggregators.catalogue import CATALOGUE

pytest.importorskip("torch")

from edge_mil_export import cli
from edge_mil_export.architectures.building import fresh_head
from edge_mil_export.architectures.registry import variants
from edge_mil_export.audit.references import EmbeddingMean, InstanceMax
from edge_mil_export.audit.training import Sizes, audit, auroc, verdict
from edge_mil_export.audit.unit_tests import BAG, UNIT_TESTS, WIDTH, draw_bags, standardised
from edge_mil_export.commands import audit as audit_command

NAMES = [variant.name for variant in variants()]


def near(bag: np.ndarray, mean: float) -> int:
    """Count the instances whose coordinates all lie close to a mean with deviation 0.1."""
    return int((np.abs(bag - mean).max(axis=1) < 0.6).sum())


def test_the_first_test_poisons_negatives_in_training_and_positives_after_it() -> None:
    rng = np.random.default_rng(0)
    for poisoned in (False, True):
        bags = draw_bags(UNIT_TESTS[0], rng, 60, poisoned=poisoned)
        for bag, label in zip(bags.instances, bags.labels, strict=True):
            assert near(bag, -10) == int(bool(label) == poisoned)


def test_the_second_test_needs_both_concepts() -> None:
    rng = np.random.default_rng(0)
    for poisoned in (False, True):
        bags = draw_bags(UNIT_TESTS[1], rng, 200, poisoned=poisoned)
        marked = np.zeros(2)
        for bag, label in zip(bags.instances, bags.labels.tolist(), strict=True):
            has_a, has_b = near(bag, 2), near(bag, 3)
            assert (has_a > 0 and has_b > 0) if label else has_a + has_b == 1
            assert has_a <= 4
            assert has_b <= 4
            marked[label] += near(bag, -10)
        assert marked[0] == (0 if poisoned else 100)
        assert marked[1] == 100 if poisoned else 2 <= marked[1] <= 25


def test_the_third_test_repeats_one_kind_in_negative_bags_of_the_test_split() -> None:
    rng = np.random.default_rng(0)
    for poisoned in (False, True):
        bags = draw_bags(UNIT_TESTS[2], rng, 60, poisoned=poisoned)
        for bag, label in zip(bags.instances, bags.labels, strict=True):
            kinds = sorted([near(bag, -2), near(bag, 2)])
            if label:
                assert kinds == [1, 1]
            else:
                assert kinds[0] == 0
                assert kinds[1] in (range(35, 40) if poisoned else (1,))


def test_bags_are_standardised_by_the_training_instances_alone() -> None:
    rng = np.random.default_rng(0)
    train = draw_bags(UNIT_TESTS[0], rng, 40, poisoned=False)
    scaled, other = standardised(train, draw_bags(UNIT_TESTS[0], rng, 10, poisoned=True))
    rows = scaled.instances.reshape(-1, WIDTH)
    assert scaled.instances.shape == (40, BAG, WIDTH)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-5)
    assert abs(other.instances.mean()) > 1e-4


def test_the_mean_of_embeddings_can_cheat_and_the_largest_instance_cannot() -> None:
    sizes = Sizes(train=200, test=100)
    means, _ = audit(EmbeddingMean, seeds=1, sizes=sizes)
    assert means[0].verdict == "can cheat"
    assert means[0].train_auroc > 0.95
    assert means[0].test_auroc < 0.2
    largest, _ = audit(InstanceMax, seeds=1)
    assert largest[0].test_auroc > 0.6
    assert largest[0].verdict != "can cheat"


def test_ties_count_half_in_the_auroc() -> None:
    labels = np.array([0, 1, 0, 1])
    assert auroc(np.array([0.0, 1.0, 0.0, 1.0]), labels) == 1
    assert auroc(np.zeros(4), labels) == 0.5
    assert auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1])) == 0.875
    assert auroc(np.array([1.0, 0.0, 2.0, 3.0]), labels) == 0.5


def test_seeds_that_disagree_are_undecided_and_not_learned_nothing() -> None:
    # Two trainings, one of which cheats by absence: a mean of 0.5 and a spread of 0.71.
    assert verdict(1.0, 0.5, 0.71) == "undecided"
    assert verdict(1.0, 0.5, 0.04) == "learned nothing"
    assert verdict(1.0, 0.1, 0.2) == "can cheat"
    assert verdict(1.0, 0.95, 0.1) == "respects"


def test_a_verdict_needs_a_task_that_was_learned() -> None:
    assert verdict(0.5, 0.1) == "learned nothing"
    assert verdict(1.0, 0.1) == "can cheat"
    assert verdict(1.0, 0.5) == "learned nothing"
    assert verdict(1.0, 0.7) == "in part"
    assert verdict(1.0, 1.0) == "respects"


def test_the_command_prints_a_table_or_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mil_export.audit.training.Sizes", _small)
    assert cli.main(["audit", "max_mil", "--seeds", "1", "--json"]) == 0
    head = json.loads(capsys.readouterr().out)["heads"][0]
    assert head["name"] == "max_mil"
    assert head["options"] == {"pooling": "max", "activation": "relu"}
    assert [test["test"] for test in head["tests"]] == [1, 2, 3]
    assert cli.main(["audit", "embedding_mean", "--seeds", "1"]) == 0
    assert "| embedding_mean | " in capsys.readouterr().out


def test_heads_trained_at_once_have_the_results_and_the_order_of_one_after_the_other() -> None:
    chosen: list[tuple[str, dict[str, str]]] = [("instance_max", {}), ("embedding_mean", {})]
    at_once = list(audit_command._audited(chosen, 1, jobs=2))
    in_turn = list(audit_command._audited(chosen, 1, jobs=1))
    assert [row.name for row in at_once] == ["instance_max", "embedding_mean"]
    assert [row.outcomes for row in at_once] == [row.outcomes for row in in_turn]


def _small() -> Sizes:
    return Sizes(train=20, test=10, epochs=1)


def test_a_mistake_in_the_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["nonsense"],
        ["clam_sb", "--seeds", "0"],
        ["all", "--jobs", "0"],
        ["all", "--arch-option", "a=b"],
    ):
        assert cli.main(["audit", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_catalogue_lists_exactly_the_heads_that_are_imported() -> None:
    assert [entry.name for entry in CATALOGUE] == NAMES
    kinds = {v.name: v.architecture.build.incremental for v in variants()}
    assert {entry.name: entry.incremental for entry in CATALOGUE} == kinds
    assert all(entry.paper for entry in CATALOGUE)


@pytest.mark.parametrize("name", NAMES)
def test_every_head_can_be_made_fresh_and_trained(name: str) -> None:
    import torch

    torch.manual_seed(0)
    _, head, _ = fresh_head(name, {}, feature_dim=WIDTH, outputs=2)
    head.requires_grad_(requires_grad=True)
    bag = torch.randn(BAG, WIDTH)
    head(bag).square().sum().backward()
    grown = [p.grad for p in head.parameters() if p.grad is not None]
    assert grown
    assert all(torch.isfinite(gradient).all() for gradient in grown)
    assert sum(float(gradient.abs().sum()) for gradient in grown) > 0
