"""`edge-mil-export aggregator`: detection, options, what is refused, and a user's own head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_references
from shared_data import shared

torch = pytest.importorskip("torch")

from edge_mil_export.architectures import (  # noqa: E402
    AttentionHead,
    Head,
    Options,
    StateDictReader,
    architecture,
    registry,
)
from edge_mil_export.architectures.head import gated  # noqa: E402
from edge_mil_export.cli import main as edge_mil_export  # noqa: E402

from edge_mil.bundle import open_bundle  # noqa: E402
from edge_mil.cli import main as edge_mil  # noqa: E402

Shapes = dict[str, tuple[int, ...]]

GABMIL: Shapes = {
    "feature.0.weight": (6, 5),
    "feature.0.bias": (6,),
    "attention_V.0.weight": (4, 6),
    "attention_V.0.bias": (4,),
    "attention_U.0.weight": (4, 6),
    "attention_U.0.bias": (4,),
    "attention_weights.weight": (1, 4),
    "attention_weights.bias": (1,),
    "classifier.0.weight": (3, 6),
    "classifier.0.bias": (3,),
}
CLAM_SB: Shapes = {
    "attention_net.0.weight": (6, 5),
    "attention_net.0.bias": (6,),
    "attention_net.2.attention_a.0.weight": (4, 6),
    "attention_net.2.attention_a.0.bias": (4,),
    "attention_net.2.attention_b.0.weight": (4, 6),
    "attention_net.2.attention_b.0.bias": (4,),
    "attention_net.2.attention_c.weight": (1, 4),
    "attention_net.2.attention_c.bias": (1,),
    "classifiers.weight": (2, 6),
    "classifiers.bias": (2,),
    "instance_classifiers.0.weight": (2, 6),
    "instance_classifiers.0.bias": (2,),
}
MEAN_MAX: Shapes = {
    "head.0.weight": (6, 5),
    "head.0.bias": (6,),
    "head.2.weight": (1, 6),
    "head.2.bias": (1,),
}


def weights(shapes: Shapes, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(*shape, generator=generator) for key, shape in shapes.items()}


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Export a state dict or a file; returns the exit code and what was written to stderr."""

    def run(checkpoint: Any, *words: str) -> tuple[int, str]:
        path = checkpoint
        if not isinstance(checkpoint, Path):
            path = tmp_path / "checkpoint.pt"
            torch.save(checkpoint, path)
        capsys.readouterr()
        out = str(tmp_path / "bundle")
        code = edge_mil_export(["aggregator", str(path), "--out", out, *words])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(features: np.ndarray[Any, Any]) -> dict[str, Any]:
        np.savez(tmp_path / "bag.npz", features=features)
        capsys.readouterr()
        assert (
            edge_mil(["score", str(tmp_path / "bundle"), str(tmp_path / "bag.npz"), "--json"]) == 0
        )
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


@pytest.mark.parametrize("count", [1, 2, 30])
def test_gabmil_scores_as_a_slow_reference(count: int, export: Any, score: Any) -> None:
    state = weights(GABMIL)
    assert export(state, "--arch-option", "activation=gelu")[0] == 0
    features = np.random.default_rng(count).standard_normal((count, 5)).astype(np.float32)
    exact = {key: tensor.double().numpy() for key, tensor in state.items()}
    expected = slow_references.gabmil_mambamil(exact, features.astype(np.float64))
    assert score(features)["score"]["logits"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_clam_without_dropout_and_without_instance_classifiers_is_still_clam(
    export: Any, score: Any, tmp_path: Path
) -> None:
    shapes = {key: shape for key, shape in CLAM_SB.items() if not key.startswith("instance")}
    assert export(weights(shapes), "--classes", "normal, tumour")[0] == 0
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.aggregator.architecture == "clam_sb"
    assert manifest.task.classes == ("normal", "tumour")
    assert len(score(np.ones((2, 5), dtype=np.float32))["score"]["probabilities"]) == 2


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_one_output_ends_in_a_sigmoid(pooling: str, export: Any, score: Any) -> None:
    state = weights(MEAN_MAX)
    words = ["--arch-option", "activation=relu", "--arch-option", f"pooling={pooling}"]
    assert export(state, *words)[0] == 0
    features = np.random.default_rng(1).standard_normal((9, 5)).astype(np.float32)
    hidden = np.maximum(
        features @ state["head.0.weight"].numpy().T + state["head.0.bias"].numpy(), 0
    )
    logits = hidden @ state["head.2.weight"].numpy().T + state["head.2.bias"].numpy()
    logit = float(getattr(np, pooling)(logits))
    found = score(features)["score"]
    assert found["logits"] == pytest.approx([logit], abs=1e-5)
    assert found["probabilities"] == pytest.approx([1 / (1 + np.exp(-logit))], abs=1e-6)


def test_the_name_mean_mil_says_how_to_pool(export: Any, tmp_path: Path) -> None:
    words = ["--arch", "mean_mil", "--arch-option", "activation=relu"]
    assert export(weights(MEAN_MAX), *words)[0] == 0
    spec = open_bundle(tmp_path / "bundle").manifest.aggregator
    assert (spec.architecture, spec.pooling) == ("mean_mil", "mean")
    code, sentence = export(weights(MEAN_MAX), *words, "--arch-option", "pooling=max")
    assert code == 2
    assert "disagree" in sentence


def norms(kind: str, after: bool) -> Shapes:
    """Return the layout of MHIM-MIL's ABMIL with norms."""
    shapes: Shapes = {
        "attention.0.weight": (4, 6),
        "attention.0.bias": (4,),
        "attention.2.weight": (1, 4),
        "attention.2.bias": (1,),
        "classifier.weight": (2, 6),
        "classifier.bias": (2,),
        "norm1.weight": (6,),
        "norm1.bias": (6,),
    }
    width = 6 if after else 5
    before = "norm" if after or kind == "bn" else "feature.0"
    linear = "feature.1" if before == "feature.0" else "feature.0"
    shapes |= {f"{before}.weight": (width,), f"{before}.bias": (width,)}
    shapes |= {f"{linear}.weight": (6, 5), f"{linear}.bias": (6,)}
    if kind == "bn":
        for name, size in ((before, width), ("norm1", 6)):
            shapes |= {f"{name}.running_mean": (size,), f"{name}.running_var": (size,)}
    return shapes


@pytest.mark.parametrize("kind", ["ln", "bn"])
@pytest.mark.parametrize("after", [True, False])
def test_the_norms_of_mhim_mil_are_read_from_the_keys(
    kind: str, after: bool, export: Any, score: Any
) -> None:
    state = weights(norms(kind, after))
    for key in state:
        if key.endswith("running_var"):
            state[key] = state[key].abs() + 0.5
    assert export(state, "--arch-option", "activation=relu")[0] == 0
    features = np.random.default_rng(2).standard_normal((7, 5)).astype(np.float32)
    got = score(features)["score"]["logits"]
    w = {key: tensor.double().numpy() for key, tensor in state.items()}

    def norm(x: Any, name: str) -> Any:
        if kind == "ln":
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        else:
            x = (x - w[f"{name}.running_mean"]) / np.sqrt(w[f"{name}.running_var"] + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def layer(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    early = "feature.0" if kind == "ln" else "norm"
    x = features.astype(float) if after else norm(features.astype(float), early)
    h = np.maximum(layer(x, "feature.1" if "feature.1.weight" in w else "feature.0"), 0)
    h = norm(h, "norm") if after else h
    unnormalised = np.exp(layer(np.tanh(layer(h, "attention.0")), "attention.2"))
    pooled = (unnormalised * h).sum(0) / unnormalised.sum()
    assert got == pytest.approx(list(layer(norm(pooled, "norm1"), "classifier")), abs=2e-5)


@pytest.mark.parametrize(
    ("shapes", "words", "sentence"),
    [
        (GABMIL, [], "activation=relu or activation=gelu"),
        (MEAN_MAX, ["--arch-option", "activation=relu"], "pooling=mean or pooling=max"),
        (GABMIL, ["--arch-option", "activation=swish"], "activation=swish"),
        (GABMIL, ["--arch-option", "activation="], "activation="),
        (GABMIL, ["--arch-option", "activation"], "not NAME=VALUE"),
        (
            GABMIL,
            ["--arch-option", "activation=relu", "--arch-option", "activation=gelu"],
            "given twice",
        ),
        (CLAM_SB, ["--arch-option", "heads=8"], "no option 'heads'"),
        (CLAM_SB, ["--arch", "clam_s"], "did you mean clam_sb"),
        (CLAM_SB, ["--arch", "transmil"], "nystrom=0.0.9 or nystrom=later"),
        (CLAM_SB, ["--arch", "abmil_acmil"], "look like clam_sb"),
        (CLAM_SB, ["--classes", "a,b,c"], "names 3 and clam_sb has 2 outputs"),
        (CLAM_SB, ["--classes", "a,a"], "same one twice"),
        (CLAM_SB | {"extra.weight": (2, 2)}, [], "extra.weight"),
        (CLAM_SB | {"attention_net.2.attention_b.0.weight": (4, 7)}, [], "should have"),
        ({"trunk.weight": (2, 2), "top.weight": (2, 2)}, [], "--arch"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    shapes: Shapes, words: list[str], sentence: str, export: Any, tmp_path: Path
) -> None:
    code, said = export(weights(shapes), *words)
    assert code == 2
    assert sentence in said
    assert said.strip().count("\n") == 0
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_layout_is_answered_with_the_nearest_and_three_keys(export: Any) -> None:
    shapes = {key: shape for key, shape in CLAM_SB.items() if not key.startswith("classifiers")}
    code, said = export(weights(shapes))
    assert code == 2
    assert "clam_sb (it lacks classifiers.weight)" in said
    assert "--arch" in said


@pytest.mark.shared
def test_a_start_of_dsmils_training_is_refused_with_its_reason(export: Any) -> None:
    found = sorted(shared("checkpoints/dsmil_init").rglob("*.pth"))
    code, said = export(found[0])
    assert code == 2
    assert "no classifier" in said


@pytest.mark.shared
def test_the_authors_wrapped_files_are_read(export: Any, score: Any) -> None:
    folder = shared("golden/_wrappers")
    assert export(folder / "clam_sb_legacy_dataparallel.pt")[0] == 0
    case = np.load(folder / "clam_sb_legacy_dataparallel_case_N50.npz")
    got = score(case["features"])["score"]["logits"]
    assert got == pytest.approx(case["logits"].ravel().tolist(), abs=1e-5)
    assert export(folder / "acmil_ga_checkpoint-best.pth")[0] == 0
    case = np.load(shared("golden/acmil_ga") / "case_N64.npz")
    got = score(case["features"])["score"]["logits"]
    assert got == pytest.approx(case["slide_logits"].ravel().tolist(), abs=1e-5)
    code, said = export(folder / "transmil_lightning.ckpt")
    assert code == 2
    assert "nystrom=0.0.9 or nystrom=later" in said
    assert export(folder / "transmil_lightning.ckpt", "--arch-option", "nystrom=later")[0] == 0
    case = np.load(shared("golden/transmil_nystrom014") / "case_N64.npz")
    got = score(case["features"])["score"]["logits"]
    assert got == pytest.approx(case["logits"].ravel().tolist(), abs=1e-4)


@pytest.mark.shared
def test_student_and_teacher_score_differently(export: Any, score: Any) -> None:
    path = shared("golden/_wrappers") / "mhim_fold_0_model_best.pt"
    options = ["--arch-option", "activation=relu", "--arch-option", "attention_activation=gelu"]
    code, said = export(path, *options)
    assert code == 2
    assert "weights=student or weights=teacher" in said
    case = np.load(shared("golden/mhim_abmil") / "case_N7.npz")
    want = case["logits"].ravel().tolist()
    assert export(path, *options, "--arch-option", "weights=teacher")[0] == 0
    assert score(case["features"])["score"]["logits"] == pytest.approx(want, abs=1e-5)
    assert export(path, *options, "--arch-option", "weights=student")[0] == 0
    assert score(case["features"])["score"]["logits"] != pytest.approx(want, abs=1e-3)


def test_the_licence_decides_whether_the_bundle_may_be_passed_on(
    export: Any, tmp_path: Path
) -> None:
    code, said = export(weights(CLAM_SB))
    assert code == 0
    assert "--licence" in said
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.licences.aggregator == "unknown, ask the authors"
    assert not manifest.redistributable
    assert export(weights(CLAM_SB), "--licence", "MIT", "--name", "mine") == (0, "")
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (manifest.licences.aggregator, manifest.name) == ("MIT", "mine")
    assert manifest.redistributable


def test_the_graphs_hold_no_trace_of_this_machine(export: Any, tmp_path: Path) -> None:
    assert export(weights(CLAM_SB))[0] == 0
    for name in ("attend.onnx", "classify.onnx"):
        assert b"site-packages" not in (tmp_path / "bundle" / name).read_bytes()


def test_the_same_checkpoint_gives_the_same_bundle(export: Any, tmp_path: Path) -> None:
    digests = []
    for _ in range(2):
        assert export(weights(CLAM_SB))[0] == 0
        digests.append(open_bundle(tmp_path / "bundle").digest)
    assert digests[0] == digests[1]


def test_a_users_own_head_is_one_decorated_class(
    export: Any, score: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))

    @architecture("mine", keys=("trunk.weight", "top.weight"))
    class Mine(AttentionHead):
        def __init__(self, layout: StateDictReader, options: Options) -> None:
            super().__init__(layout, options)
            trunk = layout.linear("trunk")
            attention = gated(layout, "look", "", "weigh", trunk.out_features)
            top = layout.linear("top", trunk.out_features)
            self.assemble(trunk, attention, top, feature_dim=trunk.in_features)

    shapes = {"trunk": (6, 5), "look": (4, 6), "weigh": (1, 4), "top": (2, 6)}
    state = {f"{name}.weight": shape for name, shape in shapes.items()}
    state |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    assert issubclass(Mine, Head)
    assert export(weights(state))[0] == 0
    assert open_bundle(tmp_path / "bundle").manifest.aggregator.architecture == "mine"
    assert len(score(np.ones((3, 5), dtype=np.float32))["score"]["logits"]) == 2
