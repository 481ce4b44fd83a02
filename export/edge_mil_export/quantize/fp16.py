"""Write FP16 into a graph as types, which is what a strongly typed TensorRT network needs.

The inside of the network is FP16; three things stay FP32, with casts around them. Preprocessing,
because the image fills 8 bits exactly. LayerNormalization and every sum or mean, which ruined a ViT
in FP16 (19 % top-1 on a Jetson: `docs/design/quantization-and-runtime.md`, "FP16"). The features,
which the head takes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_mil_export.errors import QuantizationError
from edge_mil_export.onnx_export.graph_surgery import (
    HEAVY,
    NEWEST_IR,
    VALUE_PRESERVING,
    GraphView,
    resolve_constants,
)

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
"""Sums over many numbers, and operators that depend on the type of their input."""
LARGEST_FP16 = 65504.0
"""The largest finite number of FP16."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP16 copy of an FP32 graph, with the same input and output.

    Args:
        model: uint8 tiles in, float32 features out.

    Raises:
        QuantizationError: A weight is beyond FP16's range, or the graph has branches or loops.
    """
    converted = _Fp16Conversion(resolve_constants(model)).run()
    converted.ir_version = min(converted.ir_version, NEWEST_IR)
    onnx.checker.check_model(converted)
    return converted


class _Fp16Conversion:
    """One run over the nodes in order, which puts a cast where FP16 and FP32 meet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model, self._view = model, GraphView(model)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        known = [*inferred.value_info, *inferred.input, *inferred.output]
        self._floats = {
            v.name for v in known if v.type.tensor_type.elem_type == TensorProto.FLOAT
        } | {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        self._fp16: set[str] = set()
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
            self._convert(node)
        for output in graph.output:
            if output.name in self._fp16:
                self._cast_output(output.name)
        used = {name for node in self._nodes for name in node.input}
        kept = [t for t in graph.initializer if t.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend([*kept, *self._weights.values()])
        return self._model

    def _convert(self, node: onnx.NodeProto) -> None:
        fp16 = self._runs_in_fp16(node)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [self._in_type(name, fp16) for name in node.input]
        self._nodes.append(copied)
        if fp16:
            self._fp16.update(name for name in node.output if name in self._floats)

    def _runs_in_fp16(self, node: onnx.NodeProto) -> bool:
        if self._image & set(node.input) and node.op_type not in HEAVY:
            self._image.update(node.output)  # preprocessing, up to the first layer
            return False
        if node.op_type in FP32_OPERATORS:
            return False
        if node.op_type in VALUE_PRESERVING:
            return node.input[0] in self._fp16  # no cast for what computes nothing
        return any(name in self._floats for name in node.output)

    def _in_type(self, name: str, fp16: bool) -> str:
        """Return the name under which a tensor is there in FP16, or in FP32."""
        if name not in self._floats:
            return name
        if name in self._view.initializers:
            return self._fp16_weight(name) if fp16 else name
        if (name in self._fp16) == fp16:
            return name
        if (name, fp16) not in self._casts:
            cast = f"{name}_{'half' if fp16 else 'single'}"
            kind = TensorProto.FLOAT16 if fp16 else TensorProto.FLOAT
            self._nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=kind))
            self._casts[name, fp16] = cast
        return self._casts[name, fp16]

    def _fp16_weight(self, name: str) -> str:
        """Return the name of a weight's FP16 copy."""
        copy = f"{name}_half"
        if copy not in self._weights:
            values = self._view.value(name)
            largest = float(np.abs(values).max(initial=0.0))
            if not largest <= LARGEST_FP16:
                raise QuantizationError(
                    f"Weight {name} holds {largest:.3g}, beyond FP16's {LARGEST_FP16:g}; export "
                    "without fp16."
                )
            self._weights[copy] = numpy_helper.from_array(values.astype(np.float16), copy)
        return copy

    def _cast_output(self, name: str) -> None:
        """Cast an output of the graph to FP32; the cast takes the output's own name."""
        inside = f"{name}_half"
        for node in self._nodes:
            node.output[:] = [inside if out == name else out for out in node.output]
            node.input[:] = [inside if given == name else given for given in node.input]
        self._nodes.append(
            helper.make_node("Cast", [inside], [name], f"{name}_cast", to=TensorProto.FLOAT)
        )
