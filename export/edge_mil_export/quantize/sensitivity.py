"""Measure what each layer costs: INT8 in one layer at a time, all others FP32."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edge_mil.types import UInt8Array
from edge_mil_export.agreement import centred_error
from edge_mil_export.onnx_export.extractor_graph import run_graph
from edge_mil_export.onnx_export.graph_surgery import GraphView
from edge_mil_export.progress import progress
from edge_mil_export.quantize.calibrator import Statistics
from edge_mil_export.quantize.qdq import quantize


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One layer's cost.

    Attributes:
        name: The layer's name in the graph.
        error: Squared error of the features, as a share of their variance.
    """

    name: str
    error: float


def layer_sensitivities(
    model: onnx.ModelProto, statistics: Statistics, dialect: str, tiles: UInt8Array
) -> list[Sensitivity]:
    """Return every layer's cost, worst first.

    Args:
        model: The FP32 graph, from `resolve_constants`.
        statistics: Of its calibration.
        dialect: cpu or trt.
        tiles: Some tiles, uint8 (n, h, w, 3); eight are enough to rank layers.
    """
    layers = GraphView(model).layers()
    reference = run_graph(model.SerializeToString(), tiles)
    found = []
    for layer in progress(layers, f"layers of {dialect}", "layer"):
        others = [name for name in layers if name != layer]
        data = quantize(model, statistics, dialect, others).SerializeToString()
        found.append(Sensitivity(layer, centred_error(reference, run_graph(data, tiles))))
    return sorted(found, key=lambda layer: -layer.error)
