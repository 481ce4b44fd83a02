"""FP16 as types in the graph: what a strongly typed TensorRT network wants.

The inside of the network is FP16; three things stay FP32, with casts around them. Preprocessing,
since the image fills 8 bits exactly. LayerNormalization and every sum or mean: in FP16 they ruined
a ViT (19 % top-1 on a Jetson, `runtime.md`, section 3). The features, which the head takes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_mil_export.errors import QuantizationError
from edge_mil_export.onnx_export.graph_surgery import (
    HEAVY,
    VALUE_PRESERVING,
    GraphView,
    resolve_constants,
)
from edge_mil_export.quantize.qdq import NEWEST_IR

FP32_OPERATORS = frozenset(
    (
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "GlobalAveragePool",
        "ReduceMean",
        "ReduceSum",
        "ReduceL2",
        "Cast",
        "ConstantOfShape",
        "Range",
        "Resize",
        "QuantizeLinear",
        "DequantizeLinear",
    )
)
"""Sums over many numbers, and operators whose types say what they do."""
LARGEST = 65504.0
"""Of FP16."""


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP16 copy of an FP32 graph, with the same input and output.

    Args:
        model: uint8 tiles in, float32 features out.

    Raises:
        QuantizationError: A weight is beyond FP16's range, or the graph has branches or loops.
    """
    made = _Halving(resolve_constants(model)).run()
    made.ir_version = min(made.ir_version, NEWEST_IR)
    onnx.checker.check_model(made)
    return made


class _Halving:
    """One run: walks the nodes in order, and puts a cast where FP16 and FP32 meet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model, self._view = model, GraphView(model)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        known = [*inferred.value_info, *inferred.input, *inferred.output]
        self._floats = {
            v.name for v in known if v.type.tensor_type.elem_type == TensorProto.FLOAT
        } | {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        self._half: set[str] = set()
        self._image = {model.graph.input[0].name}
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, bool], str] = {}
        self._weights: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        for node in list(graph.node):
            if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
                raise QuantizationError(
                    f"Node {node.name} ({node.op_type}) holds a graph of its own, which cannot be "
                    "made FP16; export without fp16."
                )
            self._take(node)
        for output in graph.output:
            if output.name in self._half:
                self._give_back(output.name)
        used = {name for node in self._nodes for name in node.input}
        held = [t for t in graph.initializer if t.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend([*held, *self._weights.values()])
        return self._model

    def _take(self, node: onnx.NodeProto) -> None:
        half = self._is_half(node)
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[:] = [self._as(name, half) for name in node.input]
        self._nodes.append(made)
        if half:
            self._half.update(name for name in node.output if name in self._floats)

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if self._image & set(node.input) and node.op_type not in HEAVY:
            self._image.update(node.output)  # preprocessing, up to the first layer
            return False
        if node.op_type in FP32_OPERATORS:
            return False
        if node.op_type in VALUE_PRESERVING:
            return node.input[0] in self._half  # no cast for what computes nothing
        return any(name in self._floats for name in node.output)

    def _as(self, name: str, half: bool) -> str:
        """Return the name under which a tensor is there in FP16, or in FP32."""
        if name not in self._floats:
            return name
        if name in self._view.initializers:
            return self._weight(name) if half else name
        if (name in self._half) == half:
            return name
        if (name, half) not in self._casts:
            cast = f"{name}_{'half' if half else 'single'}"
            kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self._nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=kind))
            self._casts[name, half] = cast
        return self._casts[name, half]

    def _weight(self, name: str) -> str:
        named = f"{name}_half"
        if named not in self._weights:
            values = self._view.value(name)
            largest = float(np.abs(values).max(initial=0.0))
            if not largest <= LARGEST:
                raise QuantizationError(
                    f"Weight {name} holds {largest:.3g}, beyond FP16's {LARGEST:g}; export "
                    "without fp16."
                )
            self._weights[named] = numpy_helper.from_array(values.astype(np.float16), named)
        return named

    def _give_back(self, name: str) -> None:
        """Make an output FP32 again: the graph's own name goes to the cast."""
        inside = f"{name}_half"
        for node in self._nodes:
            node.output[:] = [inside if out == name else out for out in node.output]
            node.input[:] = [inside if given == name else given for given in node.input]
        self._nodes.append(
            helper.make_node("Cast", [inside], [name], f"{name}_cast", to=TensorProto.FLOAT)
        )
