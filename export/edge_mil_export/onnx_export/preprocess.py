"""Put preprocessing into a graph, so that it takes uint8 (n, h, w, 3) tiles.

Cast comes first: TensorRT takes a uint8 input but lets only a Cast read it. The normalisation is
not folded into the first convolution, whose zero padding would then mean something else.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_mil_export.extractors.source import MAX_CHANNEL, Normalisation
from edge_mil_export.onnx_export.graph_surgery import copy_model

INPUT, OUTPUT = "tiles", "features"


def fuse_preprocessing(
    model: onnx.ModelProto, tile_px: tuple[int, int], normalisation: Normalisation | None
) -> onnx.ModelProto:
    """Return a copy that takes uint8 RGB tiles.

    Args:
        model: Takes float32 (n, 3, h, w), through one input.
        tile_px: Height and width of a tile.
        normalisation: None hands the network 0 to 255 as they are.
    """
    made = copy_model(model)
    graph = made.graph
    weights = {tensor.name for tensor in graph.initializer}
    old = next(i for i in graph.input if i.name not in weights)
    graph.input.remove(old)
    if old.name.startswith(INPUT):
        # The user's module may call its own argument `tiles`, as ours do.
        inside = f"network_{old.name}"
        for node in graph.node:
            node.input[:] = [inside if name == old.name else name for name in node.input]
        old.name = inside
    shape: list[str | int | None] = ["n", *tile_px, 3]
    graph.input.insert(0, helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    planes = old.name if normalisation is None else "tiles_planes"
    nodes = [
        helper.make_node("Cast", [INPUT], ["tiles_float"], "tiles_cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", ["tiles_float"], [planes], "tiles_transpose", perm=[0, 3, 1, 2]
        ),
    ]
    if normalisation is not None:
        mean = np.array(normalisation.mean, np.float64).reshape(1, 3, 1, 1)
        std = np.array(normalisation.std, np.float64).reshape(1, 3, 1, 1)
        scale, shift = (
            (1 / (MAX_CHANNEL * std)).astype(np.float32),
            (-mean / std).astype(np.float32),
        )
        graph.initializer.append(numpy_helper.from_array(scale, "tiles_scale"))
        graph.initializer.append(numpy_helper.from_array(shift, "tiles_shift"))
        nodes += [
            helper.make_node("Mul", [planes, "tiles_scale"], ["tiles_scaled"], "tiles_mul"),
            helper.make_node("Add", ["tiles_scaled", "tiles_shift"], [old.name], "tiles_add"),
        ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return made


def name_ends(model: onnx.ModelProto, feature_dim: int) -> onnx.ModelProto:
    """Return a copy whose input is `tiles` and whose output is `features`, float32 (n, d)."""
    made = copy_model(model)
    graph = made.graph
    weights = {tensor.name for tensor in graph.initializer}
    first = next(i for i in graph.input if i.name not in weights)
    renamed = {first.name: INPUT, graph.output[0].name: OUTPUT}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | weights
    for name in (INPUT, OUTPUT):
        if name in taken and name not in renamed:
            renamed[name] = f"{name}_inside"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
    sides = [d.dim_value or None for d in first.type.tensor_type.shape.dim]
    graph.input.remove(first)
    tiles = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", *sides[1:]])
    graph.input.insert(0, tiles)
    del graph.output[:]
    features = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", feature_dim])
    graph.output.append(features)
    return made
