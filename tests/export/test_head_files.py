"""Heads in files as their authors save them: Lightning, a hub's folder, several networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_models import large_model
from shared_data import shared

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from edge_mil_export.architectures import registry  # noqa: E402
from edge_mil_export.cli import main as edge_mil_export  # noqa: E402

from edge_mil.bundle import open_bundle  # noqa: E402
from edge_mil.cli import main as edge_mil  # noqa: E402

WIDTH = 8
STAMP = {"n_heads": 4, "categories": ["adeno", "squamous"], "task": "classification"}


def fresh(head: str) -> dict[str, Any]:
    torch.manual_seed(0)
    state: dict[str, Any] = registry.named_architecture(head).build.fresh(WIDTH, 2)
    return {key: tensor.contiguous() for key, tensor in state.items()}


def exported(path: Path, out: Path, *words: str) -> int:
    named = ["--out", str(out), "--force", "--licence", "test"]
    return edge_mil_export(["aggregator", str(path), *named, *words])


def test_a_lightning_file_answers_for_heads_classes_and_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {f"model.{key}": tensor for key, tensor in fresh("stamp_vit").items()}
    whole = {"pytorch-lightning_version": "2.5", "state_dict": state, "hyper_parameters": STAMP}
    torch.save(whole, tmp_path / "model.ckpt")
    assert exported(tmp_path / "model.ckpt", tmp_path / "bundle") == 0
    assert "taken for granted" not in capsys.readouterr().out
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.aggregator.options["heads"] == "4"
    assert manifest.task.classes == ("adeno", "squamous")


def test_what_the_user_says_counts_more_than_what_the_file_says(tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in fresh("stamp_vit").items()}
    whole = {"state_dict": state, "hyper_parameters": STAMP}
    torch.save(whole, tmp_path / "model.ckpt")
    words = ["--arch-option", "heads=2", "--classes", "a,b", "--task", "multilabel"]
    assert exported(tmp_path / "model.ckpt", tmp_path / "bundle", *words) == 0
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.aggregator.options["heads"] == "2"
    assert manifest.task.classes == ("a", "b")
    assert manifest.task.probabilities == "sigmoid"


@pytest.mark.parametrize(
    "settings", [{"n_heads": "4"}, {"n_heads": True}, {"n_heads": -1}, ["n_heads", 4], None]
)
def test_settings_of_another_kind_say_nothing(
    settings: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": fresh("stamp_vit"), "hyper_parameters": settings}, tmp_path / "m.pt")
    assert exported(tmp_path / "m.pt", tmp_path / "bundle") == 2
    assert "heads=" in capsys.readouterr().err


def test_a_folder_as_model_hubs_lay_it_out_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    assert exported(folder, tmp_path / "bundle") == 2
    assert "model.safetensors" in capsys.readouterr().err
    safetensors.save_file(fresh("transformer_millab"), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_heads": 4, "model_type": "transformer"}))
    assert exported(folder, tmp_path / "bundle") == 0
    assert open_bundle(tmp_path / "bundle").manifest.aggregator.options["heads"] == "4"
    (folder / "config.json").write_text("{")
    assert exported(folder, tmp_path / "bundle") == 2
    assert "config.json cannot be read" in capsys.readouterr().err


def test_of_two_encoders_in_one_file_the_user_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = fresh("feather_millab")
    both = {f"module.base_enc.{key}": tensor + 1 for key, tensor in state.items()}
    both |= {f"module.momentum_enc.{key}": tensor for key, tensor in state.items()}
    torch.save({"state_dict": both, "epoch": 3}, tmp_path / "ssl.pth")
    assert exported(tmp_path / "ssl.pth", tmp_path / "bundle") == 2
    asked = capsys.readouterr().err
    assert "base" in asked
    assert "momentum" in asked
    words = ["--arch-option", "weights=momentum"]
    assert exported(tmp_path / "ssl.pth", tmp_path / "bundle", *words) == 0
    assert open_bundle(tmp_path / "bundle").manifest.aggregator.options["weights"] == "momentum"


@pytest.mark.shared
@pytest.mark.slow
def test_published_files_score_as_their_golden_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared("golden/_wrappers_2026")
    told = json.loads((folder / "README.json").read_text())
    assert told
    for name, given in told.items():
        golden = large_model(given["golden"])
        options = given.get("options", golden.options)
        if given["golden"] == "mhim_abmil_surv":
            options = dict(golden.options) | options
        words = [w for k, v in options.items() for w in ("--arch-option", f"{k}={str(v).lower()}")]
        words += ["--task", golden.task] if golden.task else []
        assert exported(folder / name, tmp_path / "bundle", *words) == 0
        for case in golden.cases.values():
            bag = case.write_bag(tmp_path / "bag.npz")
            capsys.readouterr()
            assert edge_mil(["score", str(tmp_path / "bundle"), str(bag), "--json"]) == 0
            score = json.loads(capsys.readouterr().out)["score"]
            for key, want in case.outputs.items():
                got = np.ravel(score[key])
                assert np.abs(got - want).max() <= 1e-4 * max(1, np.abs(want).max())
