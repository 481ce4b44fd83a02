"""What `load_state_dict` takes off, and what it refuses in one sentence."""

from __future__ import annotations

import argparse
import pickle
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_mil_export.checkpoints.loading import load_checkpoint, load_state_dict  # noqa: E402
from edge_mil_export.errors import CheckpointError  # noqa: E402

from edge_mil.errors import UsageError  # noqa: E402

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -2.0])}
OTHER = {key: tensor + 1 for key, tensor in WEIGHTS.items()}


def saved(folder: Path, value: object, **options: Any) -> Path:
    path = folder / "checkpoint.pt"
    torch.save(value, path, **options)
    return path


def with_prefix(prefix: str) -> dict[str, Any]:
    return {prefix + key: tensor for key, tensor in WEIGHTS.items()}


def assert_is_weights(path: Path, weights: str | None = None) -> None:
    state = load_state_dict(path, weights=weights)
    assert sorted(state) == sorted(WEIGHTS)
    for key, tensor in WEIGHTS.items():
        assert torch.equal(state[key], tensor)
        assert state[key].dtype == torch.float32


@pytest.mark.parametrize(
    "wrapped",
    [
        WEIGHTS,
        with_prefix("module."),
        with_prefix("model."),
        with_prefix("module.model."),
        {"state_dict": with_prefix("model."), "epoch": 3},
        {"model": with_prefix("module."), "optimizer": {"state": {}}, "epoch": 3},
        {"model": WEIGHTS, "teacher": None, "epoch": 3},
        {"teacher": WEIGHTS, "epoch": 3},
        {"model": {"state_dict": WEIGHTS}},
        {"net": with_prefix("net.")},
        with_prefix("network."),
        {"n_averaged": torch.tensor(7), **with_prefix("module.")},
        {
            "state_dict": {**with_prefix("model."), "loss.weight": torch.ones(2)},
            "pytorch-lightning_version": "1.2.3",
        },
        {**WEIGHTS, "instance_loss_fn.labels": torch.ones(2)},
        {**WEIGHTS, "epoch": 3},
    ],
    ids=lambda w: ",".join(map(str, w))[:40],
)
def test_every_wrapper_comes_off(wrapped: dict[str, Any], tmp_path: Path) -> None:
    assert_is_weights(saved(tmp_path, wrapped))


def test_a_safetensors_file_is_known_by_its_content(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(WEIGHTS, tmp_path / "weights.pt")
    assert_is_weights(tmp_path / "weights.pt")


def test_half_and_double_precision_become_single(tmp_path: Path) -> None:
    mixed = {"fc.weight": WEIGHTS["fc.weight"].half(), "fc.bias": WEIGHTS["fc.bias"].double()}
    assert_is_weights(saved(tmp_path, mixed))


def test_a_file_older_than_torch_1_6_is_read(tmp_path: Path) -> None:
    assert_is_weights(saved(tmp_path, WEIGHTS, _use_new_zipfile_serialization=False))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_configuration_beside_the_weights_is_left_out(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("authors_config")

    class Struct:
        def __init__(self) -> None:
            self.rate, self.args = 0.1, argparse.Namespace(seed=1)

    Struct.__module__, Struct.__qualname__ = "authors_config", "Struct"
    module.Struct = Struct  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "authors_config", module)
        path = saved(
            tmp_path,
            {"model": WEIGHTS, "config": Struct(), "auc": np.float64(0.5)},
            _use_new_zipfile_serialization=zipped,
        )
    assert_is_weights(path)


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
            return open, (str(trace), "w")

    with pytest.raises(CheckpointError):
        load_state_dict(saved(tmp_path, Attack()))
    load_state_dict(saved(tmp_path, {"model": WEIGHTS, "config": Attack()}))
    assert not trace.exists()


def test_student_and_teacher_are_asked_for_where_both_are_there(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": OTHER, "teacher": WEIGHTS, "epoch": 1})
    assert_is_weights(path, "teacher")
    assert torch.equal(load_state_dict(path, weights="student")["fc.bias"], OTHER["fc.bias"])
    with pytest.raises(UsageError, match="weights=student or weights=teacher"):
        load_state_dict(path)
    with pytest.raises(UsageError, match="no weights=ema"):
        load_state_dict(path, weights="ema")


@pytest.mark.parametrize(
    ("file", "first", "second"),
    [
        ({"student": OTHER, "teacher": WEIGHTS}, "student", "teacher"),
        ({"state_dict": OTHER, "state_dict_ema": WEIGHTS}, "model", "ema"),
        ({"model": OTHER, "model_ema": WEIGHTS}, "model", "ema"),
        ({"model": OTHER, "ema": {"module": WEIGHTS}}, "model", "ema"),
        (
            {
                "pytorch-lightning_version": "2.1.0",
                "state_dict": {
                    **{f"model.{key}": value for key, value in OTHER.items()},
                    **with_prefix("ema_model."),
                    "loss.weight": torch.ones(2),
                },
            },
            "model",
            "ema",
        ),
        (
            {
                "state_dict": {
                    **{f"model.{key}": value for key, value in OTHER.items()},
                    **with_prefix("teacher."),
                }
            },
            "student",
            "teacher",
        ),
        (
            {
                "state_dict": {
                    **{f"module.encoder_q.{key}": value for key, value in OTHER.items()},
                    **with_prefix("module.encoder_k."),
                    "module.queue": torch.ones(2),
                }
            },
            "encoder_q",
            "encoder_k",
        ),
        (
            {
                "state_dict": {
                    **{f"module.base_encoder.{key}": value for key, value in OTHER.items()},
                    **with_prefix("module.momentum_encoder."),
                }
            },
            "base",
            "momentum",
        ),
    ],
    ids=lambda value: ",".join(map(str, value))[:40] if isinstance(value, dict) else value,
)
def test_a_file_with_two_networks_is_asked_about(
    file: dict[str, Any], first: str, second: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, file)
    with pytest.raises(UsageError, match=f"weights={first} or weights={second}"):
        load_state_dict(path)
    assert_is_weights(path, second)
    assert torch.equal(load_state_dict(path, weights=first)["fc.bias"], OTHER["fc.bias"])
    left_out = load_checkpoint(path, weights=second).left_out
    assert left_out
    assert not any(part.startswith("fc") for part in left_out)


def test_integers_without_scales_are_no_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, {**WEIGHTS, "fc.weight": torch.ones(2, 3, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=r"fc\.weight .* integers \(int8\)"):
        load_state_dict(path)


def test_the_option_is_ignored_where_the_file_holds_one_network(tmp_path: Path) -> None:
    assert_is_weights(saved(tmp_path, {"teacher": WEIGHTS}), "student")
    assert_is_weights(saved(tmp_path, WEIGHTS), "teacher")


def test_clams_own_module_keeps_its_name(tmp_path: Path) -> None:
    keys = {
        "attention_net.module.0.weight": "attention_net.0.weight",
        "attention_net.module.3.module.0.weight": "attention_net.3.module.0.weight",
        "classifiers.weight": "classifiers.weight",
    }
    path = saved(tmp_path, {key: torch.ones(2, 2) for key in keys})
    assert sorted(load_state_dict(path)) == sorted(keys.values())
    path = saved(tmp_path, {"attention_net.3.module.0.weight": torch.ones(2, 2)})
    assert list(load_state_dict(path)) == ["attention_net.3.module.0.weight"]


def test_the_parts_of_dtfd_are_joined(tmp_path: Path) -> None:
    parts = ("classifier", "dim_reduction", "attention", "att_classifier")
    path = saved(tmp_path, {part: {"module.fc.weight": torch.ones(1, 1)} for part in parts})
    assert sorted(load_state_dict(path)) == sorted(f"{part}.fc.weight" for part in parts)


def torchscript(folder: Path) -> Path:
    path = folder / "checkpoint.pt"
    path.write_bytes(b"")
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"x")
    return path


def cut_short(folder: Path) -> Path:
    path = saved(folder, WEIGHTS)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def damaged(folder: Path) -> Path:
    path = saved(folder, WEIGHTS)
    data = bytearray(path.read_bytes())
    at = data.index(b"_rebuild_tensor_v2")
    data[at - 40 : at] = bytes(40)
    path.write_bytes(bytes(data))
    return path


def cut_safetensors(folder: Path) -> Path:
    from safetensors.torch import save

    path = folder / "checkpoint.safetensors"
    path.write_bytes(save(WEIGHTS)[:-4])
    return path


def written(data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "checkpoint.pt"
        path.write_bytes(data)
        return path

    return write


def holding(value: object, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: saved(folder, value, **options)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "missing.pt", "cannot be read"),
        (lambda folder: folder, "is a folder"),
        (torchscript, "TorchScript program"),
        (cut_short, "cut short"),
        (damaged, "cut short or damaged|cannot be read safely"),
        (cut_safetensors, "cut short"),
        (written(b""), "neither a file that torch.save wrote nor"),
        (written(b"<!DOCTYPE html>"), "neither a file that torch.save wrote nor"),
        (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), "Git LFS pointer"),
        (written(pickle.dumps({"a": 1})), "pickle that torch.save did not write"),
        (written(struct.pack("<Q", 40) + b'{"a": '), "cut short"),
        (holding([1, 2]), "holds a list, not a state dict"),
        (holding(torch.ones(3)), "holds a Tensor, not a state dict"),
        (holding({"epoch": 3, "note": "x"}), "no state dict"),
        (holding({}), "no state dict"),
        (holding(torch.nn.Linear(2, 2)), "pickled Linear object, not a state dict"),
        (holding({"model": torch.nn.Linear(2, 2)}), "no state dict"),
        (holding({"fc.weight": torch.tensor([[1.0, float("nan")]])}), "fc.weight .* NaN"),
        (holding({"fc.weight": torch.tensor([[float("inf")]])}), "fc.weight .* infinity"),
        (holding({"fc.weight": torch.tensor([1e300], dtype=torch.float64)}), "infinity"),
        (holding({"fc.weight": torch.ones(2, dtype=torch.complex64)}), "complex"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(
    make: Callable[[Path], Path], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_state_dict(make(tmp_path))
    assert "\n" not in str(caught.value)
