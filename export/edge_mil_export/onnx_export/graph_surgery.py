"""Read and copy ONNX graphs of any exporter: constants, producers and consumers by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]

NEWEST_IR = 9
"""ONNX 1.16, which TensorRT 10.3's parser was built with; older ONNX Runtimes read it too."""
HEAVY = ("Conv", "Gemm", "MatMul")
"""Operators that hold nearly all of the work, and the weights."""
VALUE_PRESERVING = ("MaxPool", "Flatten", "Reshape", "Transpose", "Identity")


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that can be edited."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def resolve_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose Constant nodes, and Identity copies of weights, are initialisers.

    The legacy exporter shares equal weights through Identity and writes limits as Constant nodes;
    a weight, or a Clip's limit, is then not among the initialisers.
    """
    made = copy_model(model)
    known = {tensor.name: tensor for tensor in made.graph.initializer}
    for node in list(made.graph.node):
        tensor = None
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
        elif node.op_type == "Identity":
            tensor = known.get(node.input[0])
        if tensor is not None:
            named = onnx.TensorProto()
            named.CopyFrom(tensor)
            named.name = node.output[0]
            known[named.name] = named
            made.graph.initializer.append(named)
            made.graph.node.remove(node)
    for number, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return made


class GraphView:
    """Names of a graph's tensors, with their nodes and values. Made once, from a resolved model.

    Attributes:
        model: The model looked at.
        initializers: Name -> tensor.
        producers: Name of a tensor -> the node that makes it.
        consumers: Name of a tensor -> the nodes that take it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {output: node for node in graph.node for output in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def value(self, name: str) -> Array:
        return np.asarray(numpy_helper.to_array(self.initializers[name]))

    def is_relu(self, node: onnx.NodeProto) -> bool:
        """Say whether a node cuts at zero: Relu, or a Clip from 0 (ReLU6)."""
        if node.op_type == "Relu":
            return True
        return (
            node.op_type == "Clip"
            and len(node.input) > 1
            and node.input[1] in self.initializers
            and float(self.value(node.input[1])) == 0
        )

    def is_positive(self, name: str) -> bool:
        """Say whether a tensor is a ReLU's output, perhaps moved or pooled by maximum since."""
        while name in self.producers and self.producers[name].op_type in VALUE_PRESERVING:
            name = self.producers[name].input[0]
        return name in self.producers and self.is_relu(self.producers[name])

    def has_weight(self, node: onnx.NodeProto) -> bool:
        """Say whether a node is a layer with a weight of its own, in a form that INT8 takes."""
        if node.op_type not in HEAVY or node.input[1] not in self.initializers:
            return False
        if node.op_type == "Conv":
            return True
        numbers = {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
        plain = numbers.get("alpha", 1) == 1 == numbers.get("beta", 1) and not numbers.get(
            "transA", 0
        )
        return plain and len(self.initializers[node.input[1]].dims) == 2

    def layers(self) -> list[str]:
        """Return the names of all layers with weights, in the order of the graph."""
        return [node.name for node in self.model.graph.node if self.has_weight(node)]

    def first_layers(self, depth: int) -> list[str]:
        """Return the layers that have fewer than `depth` layers between them and the image.

        Rounding an 8-bit image again, on another grid, costs most of all.
        """
        level, found = {self.model.graph.input[0].name: 0}, []
        for node in self.model.graph.node:
            nearest = min((level[name] for name in node.input if name in level), default=None)
            if nearest is None or node.op_type == "Shape":
                continue
            heavy = node.op_type in HEAVY
            if heavy and nearest < depth:
                found.append(node.name)
            level.update(dict.fromkeys(node.output, nearest + heavy))
        return found
