"""Heads that have no public output, scored one instance at a time from their papers' formulas.

Each function takes a state dict as float64 arrays and a bag (n, d), and returns what the head
should: plain loops, no shared code with `edge_mil` or the exporter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def gabmil_mambamil(weights: Weights, bag: Array, *, activation: str = "gelu") -> Array:
    """Return the bag logits (c,): Ilse, Tomczak and Welling 2018, eq. 7 and 9."""
    embeddings, logits = [], []
    for x in bag:
        h = _dense(weights, "feature.0", x)
        h = np.maximum(h, 0) if activation == "relu" else np.array([_gelu(v) for v in h])
        embeddings.append(h)
        logits.append(_gated_logit(weights, h))
    pooled = _weighted_mean(logits, embeddings)
    return _dense(weights, "classifier.0", pooled)


def mil_fc_mc(weights: Weights, bag: Array) -> Array:
    """Return the logits (c,) of the instance with the largest probability of any class."""
    found, best = np.empty(0), -math.inf
    for x in bag:
        logits = _dense(weights, "classifiers", np.maximum(_dense(weights, "fc.0", x), 0))
        powers = [math.exp(logit - max(logits)) for logit in logits]
        if max(powers) / math.fsum(powers) > best:
            found, best = logits, max(powers) / math.fsum(powers)
    return found


def weakstil(weights: Weights, bag: Array, *, output: str = "percent") -> float:
    """Return the percentage: the attention-weighted mean of each tile's (arXiv:2109.05892).

    Args:
        weights: With or without `encoder`; with gated, plain or no attention.
        bag: Features, (n, d).
        output: What the regressor gives: percent, fraction, or sigmoid of a logit.
    """
    logits, percentages = [], []
    for x in bag:
        h = np.maximum(_dense(weights, "encoder.0", x), 0) if "encoder.0.weight" in weights else x
        hidden = np.maximum(_dense(weights, "regressor.0", h), 0)
        value = float(_dense(weights, "regressor.2", hidden)[0])
        if output == "sigmoid":
            value = 1 / (1 + math.exp(-value))
        percentages.append(np.array([value if output == "percent" else 100 * value]))
        logit = 0.0
        if "attention_V.0.weight" in weights:
            logit = _gated_logit(weights, h)
        elif "attention.0.weight" in weights:
            branch = np.tanh(_dense(weights, "attention.0", h))
            logit = float(_dense(weights, "attention.2", branch)[0])
        logits.append(logit)
    return float(_weighted_mean(logits, percentages)[0])


def _dense(weights: Weights, name: str, x: Array) -> Array:
    return np.asarray(weights[f"{name}.weight"] @ x + weights[f"{name}.bias"])


def _gated_logit(weights: Weights, h: Array) -> float:
    gate = 1 / (1 + np.exp(-_dense(weights, "attention_U.0", h)))
    hidden = np.tanh(_dense(weights, "attention_V.0", h)) * gate
    return float(_dense(weights, "attention_weights", hidden)[0])


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def _weighted_mean(logits: list[float], rows: list[Array]) -> Array:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    total = math.fsum(powers)
    return np.array(
        [
            math.fsum(p * row[i] for p, row in zip(powers, rows, strict=True)) / total
            for i in range(len(rows[0]))
        ]
    )
