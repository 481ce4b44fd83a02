"""Round one layer's weights to int8, and correct its bias by the mean error of the rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edge_mil.types import Float32Array, Float64Array
from edge_mil_export.onnx_export.graph_surgery import GraphView

SMALLEST = 1e-8
"""Keeps a scale above 0 where a tensor never left 0."""
INT8_LARGEST = 127
INT32_ROOM = 2.0**30
"""Half of int32: what a bias may be in units of (input scale x weight scale)."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundedLayer:
    """A layer's numbers in int8.

    Attributes:
        weight: int8, the shape of the float weight.
        scale: Of each output channel, float32.
        axis: The output channels' axis.
        bias: float64, shape (c,): the layer's own, less the mean effect of the rounding.
        correction: That mean effect, float64, shape (c,).
    """

    weight: npt.NDArray[np.int8]
    scale: Float32Array
    axis: int
    bias: Float64Array
    correction: Float64Array


def round_layer(
    view: GraphView, node: onnx.NodeProto, input_scale: float, input_mean: Float64Array
) -> RoundedLayer:
    """Round the weights of a Conv, Gemm or MatMul for each output channel, symmetrically.

    Args:
        view: The graph.
        node: A layer of it.
        input_scale: Scale of the layer's quantised input.
        input_mean: Mean of each channel of that input, over the calibration tiles.

    Source:
        The bias correction is analytic, after Nagel et al. 2019, arXiv:1906.04721: the rounding
        error of the weights times the mean input.
    """
    # Which axis holds the output channels, and what bias the layer has.
    weight = view.value(node.input[1])
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else weight.ndim - 1
    others = tuple(k for k in range(weight.ndim) if k != axis)
    along = [1] * weight.ndim
    along[axis] = -1
    bias = np.zeros(weight.shape[axis])
    if len(node.input) > 2 and node.input[2] in view.initializers:
        bias = view.value(node.input[2]).astype(np.float64)
    # The largest weight of a channel becomes 127; -128 is left out.
    scale = np.maximum(np.abs(weight).max(others), SMALLEST) / INT8_LARGEST
    # A dead channel (all weights 0 after BatchNorm was folded) has a tiny scale: its bias would
    # overflow int32.
    scale = np.maximum(scale, np.abs(bias) / (input_scale * INT32_ROOM)).astype(np.float32)
    channel_scale = scale.reshape(along)
    rounded = np.clip(np.rint(weight / channel_scale), -INT8_LARGEST, INT8_LARGEST)
    weight_int8 = rounded.astype(np.int8)
    # What the rounding adds to each output, on average over the calibration tiles.
    error = weight_int8 * channel_scale.astype(np.float64) - weight
    correction = _mean_effect(node.op_type, error, input_mean, transposed)
    return RoundedLayer(weight_int8, scale, axis, bias - correction, correction)


def _mean_effect(
    kind: str, error: npt.NDArray[Any], input_mean: Float64Array, transposed: bool
) -> Float64Array:
    """Return the mean change of each output channel, float64 (c,).

    Args:
        kind: Operator of the layer.
        error: Rounding error of the weights.
        input_mean: Mean of each input channel.
        transposed: Whether the weight is (outputs, inputs).
    """
    if kind != "Conv":
        return np.asarray(input_mean @ (error.T if transposed else error))
    # Every tap of a convolution has the mean of its input; each group has its own channels.
    per_input = error.sum(tuple(range(2, error.ndim)))
    groups = len(input_mean) // per_input.shape[1]
    group_means = input_mean.reshape(groups, -1).repeat(len(per_input) // groups, 0)
    return np.asarray((per_input * group_means).sum(1))
