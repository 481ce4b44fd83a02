"""Layouts that ../shared has no case of, each against its formula in NumPy, float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_mil_export.cli import main as edge_mil_export  # noqa: E402

from edge_mil.cli import main as edge_mil  # noqa: E402

Weights = dict[str, np.ndarray[Any, Any]]
Array = np.ndarray[Any, Any]

D, L, HIDDEN = 5, 6, 4
"""Widths of features, embeddings and attention."""


class Made:
    """Weights that are drawn when a formula first asks for a layer."""

    def __init__(self) -> None:
        self.rng, self.state = np.random.default_rng(3), {}

    def layer(self, x: Array, name: str, outputs: int, *, bias: bool = True) -> Array:
        """Return a fully connected layer of rows x, (n, outputs)."""
        if f"{name}.weight" not in self.state:
            self.state[f"{name}.weight"] = self.rng.standard_normal((outputs, x.shape[-1]))
            if bias:
                self.state[f"{name}.bias"] = self.rng.standard_normal(outputs)
        y = x @ self.state[f"{name}.weight"].T
        return y + self.state[f"{name}.bias"] if bias else y


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def pool(logits: Array, h: Array) -> Array:
    unnormalised = np.exp(logits - logits.max(axis=0))
    return (unnormalised / unnormalised.sum(axis=0)).T @ h


def millab_deep(w: Made, x: Array) -> Array:
    for index in (0, 3, 6):
        x = relu(w.layer(x, f"patch_embed.{index}", L))
    a = np.tanh(w.layer(x, "global_attn.attention_a.0", HIDDEN))
    b = sigmoid(w.layer(x, "global_attn.attention_b.0", HIDDEN))
    z = pool(w.layer(a * b, "global_attn.attention_c", 1), x)
    return w.layer(z, "classifier", 4)


def millab_plain(w: Made, x: Array) -> Array:
    h = relu(w.layer(x, "patch_embed.0", L))
    a = np.tanh(w.layer(h, "global_attn.module.0", HIDDEN))
    z = pool(w.layer(a, "global_attn.module.2", 1), h)
    return w.layer(z, "classifier", 1)


def _dimreduction(w: Made, x: Array) -> Array:
    h = relu(w.layer(x, "dimreduction.fc1", L, bias=False))
    for k in range(2):
        at = f"dimreduction.resBlocks.{k}.block"
        h = h + relu(w.layer(relu(w.layer(h, f"{at}.0", L, bias=False)), f"{at}.2", L, bias=False))
    return h


def _gated(w: Made, h: Array, channels: int) -> Array:
    v = np.tanh(w.layer(h, "attention.attention_V.0", HIDDEN))
    u = sigmoid(w.layer(h, "attention.attention_U.0", HIDDEN))
    return w.layer(v * u, "attention.attention_weights", channels)


def acmil_with_blocks(w: Made, x: Array) -> Array:
    h = _dimreduction(w, x)
    return w.layer(pool(_gated(w, h, 1), h), "classifier.fc", 3)


def acmil_of_two_branches(w: Made, x: Array) -> Array:
    h = _dimreduction(w, x)
    z = pool(_gated(w, h, 2), h)
    for t in range(2):
        w.layer(z[t], f"classifier.{t}.fc", 3)
    return w.layer(z.mean(axis=0), "Slide_classifier.fc", 3)


def clam_sb_plain_without_dropout(w: Made, x: Array) -> Array:
    h = relu(w.layer(x, "attention_net.0", L))
    a = np.tanh(w.layer(h, "attention_net.2.module.0", HIDDEN))
    z = pool(w.layer(a, "attention_net.2.module.2", 1), h)
    w.layer(z, "instance_classifiers.0", 2)
    return w.layer(z, "classifiers", 3)


def clam_mb_of_four(w: Made, x: Array) -> Array:
    h = relu(w.layer(x, "attention_net.0", L))
    a = np.tanh(w.layer(h, "attention_net.3.attention_a.0", HIDDEN))
    b = sigmoid(w.layer(h, "attention_net.3.attention_b.0", HIDDEN))
    z = pool(w.layer(a * b, "attention_net.3.attention_c", 4), h)
    w.layer(z, "instance_classifiers.0", 2)
    return np.concatenate([w.layer(z[c], f"classifiers.{c}", 1) for c in range(4)])


def amlab_of_two_branches(w: Made, x: Array) -> Array:
    w.state["feature_extractor_part1.0.weight"] = np.ones((2, 1, 5, 5))
    v = np.tanh(w.layer(x, "attention_V.0", HIDDEN))
    u = sigmoid(w.layer(x, "attention_U.0", HIDDEN))
    z = pool(w.layer(v * u, "attention_w", 2), x)
    return w.layer(z.ravel(), "classifier.0", 1)


def mhim_gated(w: Made, x: Array) -> Array:
    h = relu(w.layer(x, "feature.0", L))
    at = "online_encoder.attention"
    a = np.tanh(w.layer(h, f"{at}.attention_a.0", HIDDEN, bias=False))
    b = sigmoid(w.layer(h, f"{at}.attention_b.0", HIDDEN, bias=False))
    w.state["merge.norm.weight"] = np.ones(L)
    return w.layer(pool(w.layer(a * b, f"{at}.attention_c", 1, bias=False), h), "predictor", 2)


def ins_full(w: Made, x: Array) -> Array:
    at = "model_teacherHead"
    h = relu(w.layer(relu(w.layer(x, f"{at}.classifier.1", L)), f"{at}.classifier.4", L))
    a = np.tanh(w.layer(h, f"{at}.attention.0", HIDDEN))
    w.state["encoder_q.encoder.conv1.weight"] = np.ones((2, 3, 3, 3))
    w.state["queue"] = np.ones((4, 2))
    return w.layer(pool(w.layer(a, f"{at}.attention.2", 1), h), f"{at}.top_layer", 2)


@pytest.mark.parametrize(
    ("formula", "architecture", "options"),
    [
        (millab_deep, "abmil_millab", {}),
        (millab_plain, "abmil_millab", {}),
        (acmil_with_blocks, "abmil_acmil", {}),
        (acmil_of_two_branches, "acmil_ga", {}),
        (clam_sb_plain_without_dropout, "clam_sb", {}),
        (clam_mb_of_four, "clam_mb", {}),
        (amlab_of_two_branches, "abmil_gated_amlab", {}),
        (mhim_gated, "mhim_abmil", {"activation": "relu", "attention_activation": "tanh"}),
        (ins_full, "ins", {}),
    ],
)
def test_a_variant_scores_as_its_formula(
    formula: Callable[[Made, Array], Array],
    architecture: str,
    options: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = Made()
    features = np.random.default_rng(1).standard_normal((11, D))
    expected = formula(made, features).ravel()
    state = {key: torch.from_numpy(np.array(value)).float() for key, value in made.state.items()}
    torch.save({"state_dict": state}, tmp_path / "checkpoint.pt")
    np.savez(tmp_path / "bag.npz", features=features)
    words = [word for k, v in options.items() for word in ("--arch-option", f"{k}={v}")]
    out = str(tmp_path / "bundle")
    assert (
        edge_mil_export(["aggregator", str(tmp_path / "checkpoint.pt"), "--out", out, *words]) == 0
    )
    assert capsys.readouterr().out.startswith(f"{architecture}: ")
    assert edge_mil(["score", out, str(tmp_path / "bag.npz"), "--json", "--stream", "4"]) == 0
    score = json.loads(capsys.readouterr().out)["score"]
    assert score["logits"] == pytest.approx(expected.tolist(), abs=2e-5, rel=2e-5)
    if len(expected) == 1:
        assert score["probabilities"] == pytest.approx([sigmoid(expected[0])], abs=1e-5)
