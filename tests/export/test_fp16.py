"""FP16 as types in the graph, run in ONNX Runtime against the FP32 graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_mil_export.errors import QuantizationError
from edge_mil_export.extractors import Normalisation, TorchExtractor
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.onnx_export.extractor_graph import export_extractor, run_graph
from edge_mil_export.quantize.fp16 import to_fp16
from onnx import TensorProto, helper, numpy_helper
from small_extractor import FEATURES, TILE_PX, tiny_net

HALF = Normalisation((0.5,) * 3, (0.5,) * 3)


def toy(*nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Return a graph from uint8 tiles (n, 4, 4, 3) to features (n, d)."""
    given = helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 4, 4, 3])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", None])
    first = helper.make_node("Cast", ["tiles"], ["x"], "first", to=TensorProto.FLOAT)
    held = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph([first, *nodes], "toy", [given], [made], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def types(model: onnx.ModelProto) -> dict[str, int]:
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in [*found.value_info, *found.output]}


def test_a_network_in_fp16_gives_the_features_of_fp32(tmp_path: Path) -> None:
    source = TorchExtractor("tiny", (TILE_PX, TILE_PX), HALF, tiny_net(tmp_path))
    graph = export_extractor(source, FEATURES)
    half = to_fp16(graph.model)
    tiles = paint_tiles(9, (TILE_PX, TILE_PX), 3)
    wanted, found = run_graph(graph.data, tiles), run_graph(half.SerializeToString(), tiles)
    assert found.dtype == np.float32
    assert np.abs(wanted - found).max() < 2e-3 * np.abs(wanted).max()
    kinds = {t.data_type for t in half.graph.initializer if t.name.endswith("_half")}
    assert kinds == {TensorProto.FLOAT16}
    assert len(half.SerializeToString()) < 0.8 * len(graph.data)  # names take the rest


def test_layer_norm_and_means_stay_fp32_between_fp16_layers() -> None:
    weights = {
        "w": np.ones((3, 3), np.float32),
        "gain": np.ones(3, np.float32),
        "axes": np.array([1, 2], np.int64),
    }
    half = to_fp16(
        toy(
            helper.make_node("MatMul", ["x", "w"], ["a"], "a"),
            helper.make_node("LayerNormalization", ["a", "gain"], ["b"], "b"),
            helper.make_node("MatMul", ["b", "w"], ["c"], "c"),
            helper.make_node("ReduceMean", ["c", "axes"], ["features"], "d", keepdims=0),
            weights=weights,
        )
    )
    found = types(half)
    assert found["a"] == found["c"] == TensorProto.FLOAT16
    assert found["b"] == found["features"] == TensorProto.FLOAT


def test_an_output_in_the_middle_of_fp16_is_given_back_as_fp32() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "a"),
        helper.make_node("Flatten", ["a"], ["features"], "b"),
    ]
    half = to_fp16(toy(*nodes, weights={"w": np.eye(3, dtype=np.float32)}))
    assert types(half)["features"] == TensorProto.FLOAT
    tiles = np.full((2, 4, 4, 3), 100, np.uint8)
    assert np.array_equal(run_graph(half.SerializeToString(), tiles), np.full((2, 48), 100))


def test_a_weight_beyond_fp16_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["features"], "a")
    with pytest.raises(QuantizationError, match="beyond FP16"):
        to_fp16(toy(node, weights={"w": np.full((3, 3), 1e5, np.float32)}))
