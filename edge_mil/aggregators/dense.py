"""Layers and activations in NumPy: rows in, rows out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Float64Array

Arrays = Mapping[str, npt.NDArray[Any]]
"""The arrays of `aggregator.npz`."""
Real = TypeVar("Real", np.float32, np.float64)
LAYER_NORM_EPS = 1e-5
"""What torch adds to the variance unless told otherwise."""


def linear(x: npt.NDArray[Real], arrays: Arrays, prefix: str) -> npt.NDArray[Real]:
    """Return W x + b of rows x, (n, out); without a bias where there is none.

    Args:
        x: (n, in), of the type of the arrays.
        arrays: Hold `prefix`.weight (out, in) and perhaps `prefix`.bias (out,).
        prefix: Of the layer.
    """
    y: npt.NDArray[Real] = x @ arrays[f"{prefix}.weight"].T
    bias = arrays.get(f"{prefix}.bias")
    if bias is not None:
        y += bias
    return y


def layer_norm(x: Float32Array, arrays: Arrays, prefix: str) -> Float32Array:
    """Return rows with mean 0 and variance 1, scaled and shifted, float32 (n, l).

    Args:
        x: float32 (n, l).
        arrays: Hold `prefix`.weight (l,) and perhaps `prefix`.bias (l,).
        prefix: Of the layer.
    """
    y: Float32Array = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...i,...i->...", y, y)[..., None] / x.shape[-1]
    y /= np.sqrt(variance + LAYER_NORM_EPS)
    y *= arrays[f"{prefix}.weight"]
    bias = arrays.get(f"{prefix}.bias")
    if bias is not None:
        y += bias
    return y


def softmax_rows(logits: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Turn logits into weights that sum to 1 along the last axis, in place, and return them."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def attention_weights(logits: Float32Array) -> Float64Array:
    """Return each channel's softmax over the instances, float64 (n, k), of logits (n, k)."""
    wide = logits.astype(np.float64)
    unnormalised = np.exp(wide - wide.max(axis=0))
    return np.asarray(unnormalised / unnormalised.sum(axis=0), dtype=np.float64)


def last_layer(pooled: npt.NDArray[Any], arrays: Arrays, prefix: str) -> Float64Array:
    """Return the logits of one pooled row, float64 (c,)."""
    y = arrays[f"{prefix}.weight"].astype(np.float64) @ np.ravel(pooled).astype(np.float64)
    bias = arrays.get(f"{prefix}.bias")
    return np.asarray(y if bias is None else y + bias, dtype=np.float64)


def sigmoid(x: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return 1 / (1 + exp(-x)), by tanh, which saturates where exp(-x) would overflow."""
    half = x.dtype.type(0.5)
    return np.asarray(half + half * np.tanh(half * x))


def activate(x: npt.NDArray[Real], name: str) -> npt.NDArray[Real]:
    """Apply an activation of `--arch-option`: relu, gelu (the exact one, by erf) or tanh."""
    if name == "relu":
        return np.asarray(np.maximum(x, x.dtype.type(0)))
    if name == "tanh":
        return np.asarray(np.tanh(x))
    return gelu(x)


def gelu(x: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return the exact GELU, x times the normal distribution's share below x."""
    wide = x.astype(np.float64)
    return np.asarray(wide * 0.5 * (1 + _erf(wide * math.sqrt(0.5))), dtype=x.dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])
