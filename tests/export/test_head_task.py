"""`--task`: what the outputs of a head mean is stated, settled or asked, and shown in the score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from edge_mil_export.architectures import registry  # noqa: E402
from edge_mil_export.cli import main as edge_mil_export  # noqa: E402

from edge_mil.bundle import open_bundle  # noqa: E402
from edge_mil.cli import main as edge_mil  # noqa: E402

WIDTH = 8
Export = Callable[..., int]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def run(head: str, outputs: int, *words: str) -> int:
        torch.manual_seed(0)
        state = registry.named_architecture(head).build.fresh(WIDTH, outputs)
        path = tmp_path / f"{head}.safetensors"
        safetensors.save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
        out = str(tmp_path / "bundle")
        named = ["--out", out, "--force", "--licence", "t"]
        return edge_mil_export(["aggregator", str(path), *named, *words])

    return run


def scored(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    features = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    np.savez(folder / "bag.npz", features=features)
    capsys.readouterr()
    assert edge_mil(["score", str(folder / "bundle"), str(folder / "bag.npz"), *words]) == 0
    return capsys.readouterr().out


def test_four_survival_bins_of_clam_are_asked_for_and_read_as_hazards_curve_and_risk(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("clam_sb", 4) == 2
    asked = capsys.readouterr().err
    assert asked.count("\n") == 1
    assert all(f"--task {task}" in asked for task in ("classification", "multilabel"))
    assert "--task survival-nll" in asked
    assert export("clam_sb", 4, "--task", "survival-nll") == 0
    score = json.loads(scored(tmp_path, capsys, "--json"))["score"]
    hazards = [1 / (1 + math.exp(-logit)) for logit in score["logits"]]
    curve = np.cumprod([1 - hazard for hazard in hazards])
    assert score["probabilities"] == []
    np.testing.assert_allclose(score["hazards"], hazards, atol=1e-12)
    np.testing.assert_allclose(score["survival"], curve, atol=1e-12)
    assert score["value"] == pytest.approx(-curve.sum())
    shown = scored(tmp_path, capsys)
    assert f"risk {score['value']:.4f}" in shown
    assert all(f"{number:.4f}" in shown for number in (*hazards, *curve))
    assert "(nll)" in open_bundle(tmp_path / "bundle").read("model_card.md").decode()


def test_one_output_is_asked_for_and_read_as_it_is_stated(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("clam_sb", 1) == 2
    asked = capsys.readouterr().err
    assert all(f"--task {task} (" in asked for task in ("classification", "regression", "cox"))
    answers: dict[str, Any] = {}
    for task in ("classification", "regression", "cox"):
        assert export("clam_sb", 1, "--task", task) == 0
        answers[task] = json.loads(scored(tmp_path, capsys, "--json"))["score"]
    (logit,) = answers["classification"]["logits"]
    assert answers["classification"]["probabilities"] == [pytest.approx(1 / (1 + math.exp(-logit)))]
    assert answers["regression"]["value"] == logit
    assert answers["cox"]["value"] == pytest.approx(math.exp(logit))
    assert answers["regression"]["probabilities"] == answers["cox"]["probabilities"] == []


def test_labels_that_may_all_be_true_have_a_sigmoid_each(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("clam_sb", 3, "--task", "multilabel") == 0
    score = json.loads(scored(tmp_path, capsys, "--json"))["score"]
    wanted = [1 / (1 + math.exp(-logit)) for logit in score["logits"]]
    np.testing.assert_allclose(score["probabilities"], wanted, atol=1e-12)


def test_two_outputs_are_classes_and_that_is_said(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("clam_sb", 2) == 0
    assert "taken for granted: task=classification" in capsys.readouterr().out
    card = open_bundle(tmp_path / "bundle").read("model_card.md").decode()
    assert "Taken for granted" in card
    assert "task = classification" in card
    assert export("clam_sb", 2, "--task", "classification") == 0
    assert "taken for granted" not in capsys.readouterr().out


def test_defaults_that_change_the_score_are_printed_and_in_the_card(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--task", "classification"]
    assert export("acmil_mha", 2, *words) == 0
    assert "taken for granted: heads=8" in capsys.readouterr().out
    assert "heads = 8" in open_bundle(tmp_path / "bundle").read("model_card.md").decode()
    assert export("acmil_mha", 2, *words, "--arch-option", "heads=4") == 0
    assert "taken for granted" not in capsys.readouterr().out
    options = ["activation=relu", "attention_activation=tanh"]
    named = [word for option in options for word in ("--arch-option", option)]
    assert export("mhim_abmil", 2, *words, *named, "--json") == 0
    assert json.loads(capsys.readouterr().out)["assumed"] == {"merge_test": "false"}


@pytest.mark.parametrize(
    ("head", "outputs", "task"),
    [
        ("clam_sb", 3, "regression"),
        ("clam_sb", 3, "cox"),
        ("clam_sb", 1, "survival-nll"),
        ("mil_fc", 2, "survival-nll"),
        ("feather_millab", 2, "classification"),
        ("weakstil", 1, "classification"),
    ],
)
def test_a_task_that_does_not_fit_is_refused_in_words(
    head: str, outputs: int, task: str, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--arch-option", "output=percent"] if head == "weakstil" else []
    assert export(head, outputs, "--task", task, *options) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"--task {task} does not fit {head}" in message


def test_what_the_authors_code_settles_is_not_asked(
    export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    for head in ("abmil_torchmil", "selfvit_dsmil", "abmil_amlab"):
        options = {"abmil_torchmil": ["attention_activation=tanh", "feature_activation=relu"]}
        named = [word for option in options.get(head, []) for word in ("--arch-option", option)]
        assert export(head, 1, "--arch", head, *named) == 0
        assert "task=" not in capsys.readouterr().out


def test_a_task_settles_the_option_of_heads_that_ask_for_survival(
    export: Export, tmp_path: Path
) -> None:
    assert export("otsurv", 4, "--task", "survival-nll") == 0
    options = open_bundle(tmp_path / "bundle").manifest.aggregator.options
    assert options["survival"] == "nll"
