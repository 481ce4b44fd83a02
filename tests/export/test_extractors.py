"""Extractors from every source: the graph computes what the original does, or says why not."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from shared_data import shared
from small_extractor import FEATURES, TILE_PX, tiny_net, write_module

torch = pytest.importorskip("torch")

from edge_mil_export.errors import CheckpointError, ExtractorError  # noqa: E402
from edge_mil_export.extractors import (  # noqa: E402
    ExtractorSource,
    TorchExtractor,
    open_extractor,
    parse_normalisation,
)
from edge_mil_export.extractors.timm_model import build  # noqa: E402
from edge_mil_export.onnx_export.extractor_graph import ExtractorGraph, export_extractor, run_graph  # noqa: E402

from edge_mil.errors import UsageError  # noqa: E402

HALF = "0.5,0.5,0.5/0.25,0.25,0.25"


def tiles_of(count: int, px: int = TILE_PX) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, px, px, 3), dtype=np.uint8)


def export(source: ExtractorSource) -> ExtractorGraph:
    width = source.features(tiles_of(2, source.tile_px[0])).shape[1]
    return export_extractor(source, width)


def by_hand(
    net: torch.nn.Module, tiles: np.ndarray, mean: list[float], std: list[float]
) -> np.ndarray:
    """Preprocess as a user's training code does."""
    planes = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    planes = (planes - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        return net(planes).numpy()


def test_a_factory_of_the_users_own_module_gives_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "tiny_net", raising=False)
    source = open_extractor(
        "python:tiny_net:make", weights=None, tile_px=(TILE_PX, TILE_PX), normalise=HALF
    )
    graph, tiles = export(source), tiles_of(5)
    wanted = by_hand(tiny_net(tmp_path), tiles, [0.5] * 3, [0.25] * 3)
    assert np.abs(run_graph(graph.data, tiles) - wanted).max() < 1e-4
    first = graph.model.graph.input[0]
    assert (first.name, graph.model.graph.output[0].name) == ("tiles", "features")
    assert first.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.model.ir_version <= 9
    assert [node.op_type for node in graph.model.graph.node[:4]] == [
        "Cast",
        "Transpose",
        "Mul",
        "Add",
    ]


@pytest.mark.parametrize("normalise", [HALF, "none"])
def test_a_torchscript_file_gives_the_same_features(tmp_path: Path, normalise: str) -> None:
    path, net = tmp_path / "net.pt", tiny_net(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, at each use of TorchScript
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, TILE_PX, TILE_PX)), path)
    source = open_extractor(
        f"torchscript:{path}", weights=None, tile_px=(TILE_PX, TILE_PX), normalise=normalise
    )
    graph, tiles = export(source), tiles_of(3)
    # none: the program takes 0 to 255.
    mean, std = ([0.5] * 3, [0.25] * 3) if normalise == HALF else ([0.0] * 3, [1 / 255] * 3)
    wanted = by_hand(net, tiles, mean, std)
    assert np.abs(run_graph(graph.data, tiles) - wanted).max() < 1e-4 * max(1, wanted.max())


def test_an_onnx_file_gives_the_same_features(tmp_path: Path) -> None:
    path, net = tmp_path / "net.onnx", tiny_net(tmp_path)
    graph = export(TorchExtractor("net", (TILE_PX, TILE_PX), None, net))
    # A file as others export it: float planes in, other names.
    from edge_mil_export.onnx_export.graph_surgery import copy_model

    plain = copy_model(graph.model)
    tiles = tiles_of(3)
    onnx.save(plain, path)
    source = open_extractor(
        f"onnx:{path}", weights=None, tile_px=(TILE_PX, TILE_PX), normalise="none"
    )
    assert np.array_equal(run_graph(export(source).data, tiles), run_graph(graph.data, tiles))


def test_an_onnx_file_with_float_planes_is_normalised(tmp_path: Path) -> None:
    path, net = tmp_path / "net.onnx", tiny_net(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own parts
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 3, TILE_PX, TILE_PX),),
            dynamo=True,
            opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("b")},),
            verbose=False,
        )
    assert program is not None
    program.save(path)
    source = open_extractor(
        f"onnx:{path}", weights=None, tile_px=(TILE_PX, TILE_PX), normalise=HALF
    )
    tiles = tiles_of(3)
    wanted = by_hand(net, tiles, [0.5] * 3, [0.25] * 3)
    assert np.abs(run_graph(export(source).data, tiles) - wanted).max() < 1e-4


def test_a_file_that_is_no_onnx_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model at all")
    with pytest.raises(ExtractorError, match=r"net\.onnx is no"):
        open_extractor(
            f"onnx:{tmp_path / 'net.onnx'}", weights=None, tile_px=(32, 32), normalise="none"
        )


def test_other_sources_than_timm_must_name_their_normalisation() -> None:
    with pytest.raises(UsageError, match="--normalise"):
        open_extractor("onnx:net.onnx", weights=None, tile_px=(32, 32), normalise=None)


@pytest.mark.parametrize("text", ["0.5", "0.5,0.5,0.5", "1,1/1,1", "1,1,1/0,1,1", "a,b,c/1,1,1"])
def test_a_normalisation_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--normalise"):
        parse_normalisation(text)


@pytest.mark.parametrize(
    ("factory", "sentence"), [("broken", "must return a torch"), ("wide", "pooling is missing")]
)
def test_a_factory_that_makes_no_extractor_is_refused(
    factory: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "tiny_net", raising=False)
    with pytest.raises(ExtractorError, match=sentence):
        open_extractor(
            f"python:tiny_net:{factory}", weights=None, tile_px=(32, 32), normalise="none"
        ).features(tiles_of(2))


def save_timm(name: str, path: Path, px: int) -> torch.nn.Module:
    torch.manual_seed(0)
    net = build(name, (px, px))
    torch.save(net.state_dict(), path)
    return net


def test_timm_weights_may_hold_a_classifier_and_lack_counters(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    state = save_timm("resnet18", path, 64).state_dict()
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    kept |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in kept.items()}}, path)
    source = open_extractor("timm:resnet18", weights=path, tile_px=(64, 64), normalise=None)
    assert source.normalisation is not None
    assert source.normalisation.mean == (0.485, 0.456, 0.406)
    assert source.licence == ""
    assert source.features(tiles_of(2, 64)).shape == (2, 512)


def test_keys_of_another_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(tiny_net(tmp_path).state_dict(), path)
    with pytest.raises(ExtractorError, match=r"lacks conv1\.weight, bn1\.weight, bn1\.bias and"):
        open_extractor("timm:resnet18", weights=path, tile_px=(64, 64), normalise=None)


def test_nan_in_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    state = save_timm("resnet18", path, 64).state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1\.weight .* NaN"):
        open_extractor("timm:resnet18", weights=path, tile_px=(64, 64), normalise=None)


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match="state"):
        open_extractor("timm:resnet18", weights=path, tile_px=(64, 64), normalise=None)


def test_timm_needs_weights_and_a_known_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--extractor-weights"):
        open_extractor("timm:resnet18", weights=None, tile_px=(64, 64), normalise=None)
    with pytest.raises(UsageError, match="near it are resnet"):
        open_extractor("timm:resnet18x", weights=tmp_path, tile_px=(64, 64), normalise=None)
    with pytest.raises(UsageError, match="nothing is downloaded"):
        open_extractor("timm:hf-hub:a/b", weights=tmp_path, tile_px=(64, 64), normalise=None)


def test_timm_imports_beside_a_torchvision_without_its_operators() -> None:
    code = (
        "import torch.library as t; real = t.register_fake\n"
        "from edge_mil_export.extractors.timm_import import import_timm\n"
        "assert import_timm().is_model('resnet18') and t.register_fake is real"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "px", "width"),
    [
        pytest.param("resnet18", 64, 512, id="resnet18"),
        pytest.param("resnet50", 64, 2048, marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_224", 224, 384, marks=pytest.mark.slow),
        pytest.param("densenet121", 64, 1024, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_lite0", 128, 1280, marks=pytest.mark.slow),
    ],
)
def test_timm_models_give_the_same_features(name: str, px: int, width: int, tmp_path: Path) -> None:
    net = save_timm(name, tmp_path / "weights.pth", px)
    source = open_extractor(
        f"timm:{name}", weights=tmp_path / "weights.pth", tile_px=(px, px), normalise=HALF
    )
    graph, tiles = export(source), tiles_of(3, px)
    wanted = by_hand(net.eval(), tiles, [0.5] * 3, [0.25] * 3)
    assert wanted.shape == (3, width)
    assert np.abs(run_graph(graph.data, tiles) - wanted).max() <= 1e-4 * max(1, abs(wanted).max())


def test_a_tile_need_not_be_square(tmp_path: Path) -> None:
    net = tiny_net(tmp_path)
    source = TorchExtractor("net", (32, 48), parse_normalisation(HALF), net)
    graph = export_extractor(source, FEATURES)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    assert np.abs(run_graph(graph.data, tiles) - source.features(tiles)).max() < 1e-4


@pytest.mark.shared
def test_real_half_precision_weights_are_read() -> None:
    path = shared("data/extractor/efficientnet_lite0_imagenet_fp16.safetensors")
    source = open_extractor(
        "timm:tf_efficientnet_lite0", weights=path, tile_px=(128, 128), normalise=None
    )
    features = source.features(tiles_of(2, 128))
    assert features.shape == (2, 1280)
    assert features.std() > 0.01
