"""A small real bundle for tests: ONNX graphs written here, random weights, no torch.

The extractor is one convolution with stride and a global mean, so that features depend on every
pixel; the head is gated attention in `channels` channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_mil.bundle import (
    AggregatorSpec,
    Bundle,
    ExtractorSpec,
    InputSpec,
    Licences,
    Manifest,
    StainSpec,
    TaskSpec,
    TissueSpec,
    write_bundle,
)

FEATURES, VALUES, CLASSES = 16, 12, 2


def write_small_bundle(
    out: Path,
    *,
    instances: str = "grid",
    tile_px: int = 64,
    mpp: float = 0.5,
    channels: int = 1,
    seed: int = 0,
    name: str = "small",
    extractor: bool = True,
    stain: StainSpec | None = None,
    more: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write and open a bundle with random weights, and files that are given."""
    rng = np.random.default_rng(seed)
    files = {
        **(more or {}),
        "attend.onnx": attend_graph(rng, channels),
        "classify.onnx": classify_graph(rng, channels),
    }
    if extractor:
        files["extractor.onnx"] = extractor_graph(rng, tile_px)
    manifest = Manifest(
        name=name,
        version="1",
        task=TaskSpec("classification", ("negative", "positive"), "softmax"),
        input=InputSpec(
            instances, tile_px, tile_px, mpp, "RGB", (0.5,) * 3, (0.5,) * 3, TissueSpec(), stain
        )
        if extractor
        else None,
        extractor=ExtractorSpec("test", FEATURES, {"fp32": "extractor.onnx"})
        if extractor
        else None,
        aggregator=AggregatorSpec(
            architecture="test_gated",
            incremental="mergeable",
            pooling="attention",
            feature_dim=FEATURES,
            value_dim=VALUES,
            channels=channels,
            options={},
            order="any",
            graphs={"attend": "attend.onnx", "classify": "classify.onnx"},
        ),
        licences=Licences("Apache-2.0" if extractor else "", "Apache-2.0"),
        redistributable=True,
    )
    return write_bundle(manifest, files, out)


def extractor_graph(rng: np.random.Generator, tile_px: int) -> bytes:
    weights = {
        "w": rng.normal(0, 0.3, (FEATURES, 3, 8, 8)).astype(np.float32),
        "b": rng.normal(0, 0.3, FEATURES).astype(np.float32),
        "scale": np.full((1, 3, 1, 1), 2 / 255, np.float32),
        "shift": np.full((1, 3, 1, 1), -1, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["tiles"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "scale"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["x"]),
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["features"]),
    ]
    given = helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", tile_px, tile_px, 3])
    return _model(nodes, [given], {"features": ["n", FEATURES]}, weights)


def attend_graph(rng: np.random.Generator, channels: int) -> bytes:
    weights = {
        "w1": rng.normal(0, 1, (FEATURES, VALUES)).astype(np.float32),
        "wv": rng.normal(0, 1, (VALUES, 8)).astype(np.float32),
        "wu": rng.normal(0, 1, (VALUES, 8)).astype(np.float32),
        "wa": rng.normal(0, 1, (8, channels)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["features", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["values"]),
        helper.make_node("MatMul", ["values", "wv"], ["v"]),
        helper.make_node("Tanh", ["v"], ["vt"]),
        helper.make_node("MatMul", ["values", "wu"], ["u"]),
        helper.make_node("Sigmoid", ["u"], ["us"]),
        helper.make_node("Mul", ["vt", "us"], ["g"]),
        helper.make_node("MatMul", ["g", "wa"], ["attention_logits"]),
    ]
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES])
    outputs = {"values": ["n", VALUES], "attention_logits": ["n", channels]}
    return _model(nodes, [given], outputs, weights)


def classify_graph(rng: np.random.Generator, channels: int) -> bytes:
    weights = {
        "wc": rng.normal(0, 1, (channels * VALUES, CLASSES)).astype(np.float32),
        "bc": rng.normal(0, 1, CLASSES).astype(np.float32),
    }
    nodes = [
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "wc"], ["y"]),
        helper.make_node("Add", ["y", "bc"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["b", channels, VALUES])
    return _model(nodes, [given], {"logits": ["b", CLASSES]}, weights)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: dict[str, list[str | int]],
    weights: dict[str, np.ndarray],
) -> bytes:
    found = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()]
    held = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "test", inputs, found, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
