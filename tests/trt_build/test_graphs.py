"""Every graph that the exporter writes goes through TensorRT's own parser and typed builder."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.onnx_export.extractor_graph import run_graph
from graph_zoo import NETWORKS, PX, graphs
from onnx import TensorProto, helper, numpy_helper

from edge_mil.backends.tensorrt.building.engine_builder import build_engine
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError
from edge_mil.protocols import Graph

pytestmark = pytest.mark.trt_build
MIB = 1 << 20
FORMS = {"fp32": "fp32", "fp16": "fp16", "int8-trt": "int8"}
FP16_COSINE = 0.99
"""Centred, smallest of the tiles: random weights see tiles as nearly the same (measured 0.9988)."""


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_of_the_exporter_builds(
    library: Library, cache: EngineCache, built: list[str], name: str, form: str
) -> None:
    data = graphs(name)[form]
    given = onnx.load_model_from_string(data).graph.input[0].type.tensor_type
    assert given.elem_type == TensorProto.UINT8
    recipe = Recipe(Graph(data, name), FORMS[form])
    engine = build_engine(recipe, library, None, cache)
    size = engine.header.plan_bytes
    assert size == len(engine.plan) > 0
    built.append(f"{name}, {form}: {engine.header.seconds:.1f} s, {size / MIB:.0f} MiB")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_uint8_dialect_of_a_graph_is_refused(
    library: Library, cache: EngineCache, name: str
) -> None:
    with pytest.raises(EngineError, match="Non-zero zero point is not supported"):
        build_engine(Recipe(Graph(graphs(name)["int8-cpu"], name), "int8"), library, None, cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_fp16_of_a_graph_is_its_fp32(built: list[str], name: str) -> None:
    found, tiles = graphs(name), paint_tiles(4, (PX, PX), 9)
    wanted, half = run_graph(found["fp32"], tiles), run_graph(found["fp16"], tiles)
    mean = wanted.mean(axis=0)
    left, right = wanted - mean, half - mean
    cosine = (left * right).sum(axis=1)
    cosine /= np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    built.append(f"{name}: FP16 to FP32, smallest centred cosine {cosine.min():.4f}")
    assert cosine.min() > FP16_COSINE


def test_an_int32_bias_through_dequantize_linear_is_refused(
    library: Library, cache: EngineCache
) -> None:
    """ONNX Runtime's own quantizer writes biases so; the check must be seen to fail."""
    with pytest.raises(EngineError, match=r"[Ii]nt32"):
        build_engine(Recipe(Graph(biased(), "biased"), "int8"), library, None, cache)


def test_the_same_graph_with_a_float_bias_builds(library: Library, cache: EngineCache) -> None:
    build_engine(Recipe(Graph(biased(integer=False), "biased"), "int8"), library, None, cache)


def biased(*, integer: bool = True) -> bytes:
    """Return one INT8 convolution whose bias is int32 behind a DequantizeLinear, or float."""
    held = {
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.int8),
        "weight": np.ones((4, 3, 3, 3), np.int8),
        "bias32": np.ones(4, np.int32),
        "zero32": np.array(0, np.int32),
        "bias": np.ones(4, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["tiles"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["wd"]),
    ]
    if integer:
        given = ["bias32", "scale", "zero32"]
        nodes.append(helper.make_node("DequantizeLinear", given, ["bd"]))
    nodes += [
        helper.make_node("Conv", ["xd", "wd", "bd" if integer else "bias"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["features"]),
    ]
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(v, k) for k, v in held.items() if k in used]
    tiles = helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 8, 8, 3])
    out = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "biased", [tiles], [out], weights)
    opset = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()
