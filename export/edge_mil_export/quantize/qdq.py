"""Write INT8 into a graph as explicit Q/DQ, in one of two dialects.

trt: int8, zero point 0, float bias, for TensorRT 10.3 to 11 and OpenVINO. On an Add only the skip
branch is rounded, and nothing between a convolution and its ReLU, so that TensorRT can fuse them.
cpu: uint8 (zero point 0 and the whole of 0 to 255 after a ReLU, asymmetric elsewhere), int32 bias,
outputs rounded too, for ONNX Runtime on a CPU. It absorbs a ReLU only where the output's zero point
is the type's minimum, and TensorRT refuses every zero point but 0
(`docs/design/quantization-and-runtime.md`, "INT8: two dialects").
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edge_mil_export.onnx_export.graph_surgery import NEWEST_IR, GraphView, copy_model
from edge_mil_export.quantize.calibrator import POOLS, Statistics
from edge_mil_export.quantize.rounding import INT8_LARGEST, SMALLEST, RoundedLayer, round_layer

DIALECTS = ("cpu", "trt")
UINT8_LARGEST = 255


Message = TypeVar("Message", onnx.NodeProto, onnx.TensorProto)


def quantize(
    model: onnx.ModelProto,
    statistics: Statistics,
    dialect: str,
    keep_fp32: Collection[str] = (),
) -> onnx.ModelProto:
    """Return an INT8 copy of a graph, as explicit Q/DQ.

    Args:
        model: From `resolve_constants`, opset 13 or newer.
        statistics: From a `Calibrator` of the same model.
        dialect: cpu or trt.
        keep_fp32: Names of layers that are not rounded.
    """
    return _QdqPlacement(model, statistics, dialect).run(frozenset(keep_fp32))


class _QdqPlacement:
    """One run of `quantize`: collects new constants and nodes, then writes the graph."""

    def __init__(self, model: onnx.ModelProto, statistics: Statistics, dialect: str) -> None:
        self._model = copy_model(model)
        self._view = GraphView(self._model)
        self._cpu = dialect == "cpu"
        self._ranges, self._means = dict(statistics.ranges), statistics.means
        self._constants: list[onnx.TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._rounded: dict[str, list[onnx.NodeProto]] = {}
        self._done: dict[str, onnx.NodeProto] = {}

    def run(self, keep_fp32: frozenset[str]) -> onnx.ModelProto:
        view, ranges = self._view, self._ranges
        for node in self._model.graph.node:
            # ONNX Runtime pools in INT8 only with equal scales on both sides.
            if node.op_type == "MaxPool" and node.input[0] in ranges:
                ranges[node.output[0]] = ranges[node.input[0]]
        for node in self._model.graph.node:
            if (
                node.name not in keep_fp32
                and view.has_weight(node)
                and node.input[0] in ranges
                and node.input[0] in self._means
            ):
                self._round_layer(node)
                self._done[node.name] = node
            elif node.op_type == "Add":
                self._round_add(node)
            elif self._cpu and self._is_pool(node):
                node.input[0] = self._round(node.input[0])
            self._nodes.append(node)
        if self._cpu:
            for node in self._done.values():
                self._round_output(node)
        return self._write()

    def _is_pool(self, node: onnx.NodeProto) -> bool:
        """Say whether ONNX Runtime pools in INT8 here; other means are cheap and stay float."""
        known = node.op_type in POOLS and node.input[0] in self._ranges
        return known and (node.op_type != "ReduceMean" or self._view.is_positive(node.input[0]))

    def _grid(self, name: str) -> tuple[np.float32, np.int8 | np.uint8]:
        """Return scale and zero point of a tensor."""
        low, high = self._ranges[name]
        if not self._cpu:
            return np.float32(max(-low, high, SMALLEST) / INT8_LARGEST), np.int8(0)
        if not self._view.is_positive(name):
            scale = np.float32(max(high - low, SMALLEST) / UINT8_LARGEST)
            return scale, np.uint8(np.clip(np.rint(-low / scale), 0, UINT8_LARGEST))
        scale = np.float32(max(high, SMALLEST) / UINT8_LARGEST)
        # ONNX Runtime drops a Clip only where no code can exceed its limit.
        if scale * np.float32(UINT8_LARGEST) > high > 0:
            scale = np.nextafter(scale, np.float32(0))
        return scale, np.uint8(0)

    def _round(self, name: str) -> str:
        """Return the name of a tensor's rounded copy: one Q/DQ pair, shared by its consumers."""
        rounded = f"{name}_dq"
        if name not in self._rounded:
            scale, zero = self._grid(name)
            grid = [self._constant(f"{name}_s", scale), self._constant(f"{name}_z", zero)]
            self._rounded[name] = [
                helper.make_node("QuantizeLinear", [name, *grid], [f"{name}_q"], f"{name}_Q"),
                helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [rounded], f"{name}_DQ"),
            ]
        return rounded

    def _round_layer(self, node: onnx.NodeProto) -> None:
        source, weight = node.input[0], node.input[1]
        input_scale = float(self._grid(source)[0])
        layer = round_layer(self._view, node, input_scale, self._means[source])
        node.input[0] = self._round(source)
        # Exporters share equal initialisers, so an edited copy gets a name of its own.
        node.input[1] = self._dequantized(
            f"{weight}_{node.name}", layer.weight, layer.scale, layer.axis
        )
        if node.op_type == "MatMul":
            self._correct_following_add(node, layer)
            return
        while len(node.input) < 3:
            node.input.append("")
        name = f"{node.name}_bias"
        if not self._cpu:
            node.input[2] = self._constant(name, layer.bias.astype(np.float32))
            return
        scale = np.float32(input_scale) * layer.scale
        bias = np.rint(layer.bias / scale).astype(np.int32)
        node.input[2] = self._dequantized(name, bias, scale, 0)

    def _correct_following_add(self, node: onnx.NodeProto, layer: RoundedLayer) -> None:
        """Correct a MatMul's bias, which is the Add that follows it."""
        after, view = self._view.consumers.get(node.output[0], []), self._view
        if len(after) != 1 or after[0].op_type != "Add":
            return
        for number, name in enumerate(after[0].input):
            if name in view.initializers and view.value(name).shape == layer.correction.shape:
                bias = (view.value(name) - layer.correction).astype(np.float32)
                after[0].input[number] = self._constant(f"{name}_{node.name}_c", bias)
                return

    def _round_add(self, node: onnx.NodeProto) -> None:
        makers = [self._view.producers.get(name) for name in node.input]
        convolved = [m is not None and m.name in self._done and m.op_type == "Conv" for m in makers]
        if not any(convolved) or not all(name in self._ranges for name in node.input):
            return
        for number, name in enumerate(list(node.input)):
            is_skip = not convolved[number] or (number == 1 and convolved[0])
            if self._cpu or is_skip:
                node.input[number] = self._round(name)

    def _round_output(self, node: onnx.NodeProto) -> None:
        """Round a convolution's output, or its ReLU's: QLinearConv needs one."""
        after = self._view.consumers.get(node.output[0], [])
        is_followed = len(after) == 1 and self._view.is_relu(after[0])
        name = after[0].output[0] if is_followed else node.output[0]
        if node.op_type != "Conv" or name not in self._ranges or name in self._rounded:
            return
        for consumer in self._view.consumers.get(name, []):
            inputs = [self._round(name) if taken == name else taken for taken in consumer.input]
            consumer.input[:] = inputs

    def _constant(self, name: str, value: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _dequantized(
        self, name: str, numbers: npt.NDArray[Any], scale: npt.NDArray[np.float32], axis: int
    ) -> str:
        given = [
            self._constant(f"{name}_q", numbers),
            self._constant(f"{name}_s", scale),
            self._constant(f"{name}_z", np.zeros(len(scale), numbers.dtype)),
        ]
        node = helper.make_node("DequantizeLinear", given, [f"{name}_dq"], f"{name}_DQ", axis=axis)
        self._nodes.append(node)
        return f"{name}_dq"

    def _write(self) -> onnx.ModelProto:
        graph = self._model.graph
        ordered = [
            pair
            for name, pairs in self._rounded.items()
            if name not in self._view.producers
            for pair in pairs
        ]
        for node in self._nodes:
            ordered.append(node)
            ordered += [pair for name in node.output for pair in self._rounded.get(name, [])]
        used = {name for node in ordered for name in node.input}
        kept = [t for t in [*graph.initializer, *self._constants] if t.name in used]
        # Copies, which outlive the graph that nodes and tensors are in.
        copies, tensors = [_copy(node) for node in ordered], [_copy(tensor) for tensor in kept]
        del graph.node[:]
        del graph.initializer[:]
        graph.node.extend(copies)
        graph.initializer.extend(tensors)
        self._model.ir_version = min(self._model.ir_version, NEWEST_IR)
        onnx.checker.check_model(self._model)
        return self._model


def _copy(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
