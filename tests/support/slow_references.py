"""Heads scored one instance at a time, from their papers' formulas.

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


def sc_mil_contrastive(weights: Weights, bag: Array) -> Array:
    """Return the bag logits (c,): gated ABMIL, Ilse, Tomczak and Welling 2018, eq. 7 and 9."""
    embeddings = [np.maximum(_dense(weights, "embed.0", x), 0) for x in bag]
    pooled = _weighted_mean([_gated_logit(weights, h) for h in embeddings], embeddings)
    return _dense(weights, "classifier", pooled)


def cluster_share(weights: Weights, bag: Array, *, assignment: str, alpha: str = "1") -> Array:
    """Return the bag logits (c,) of the mean share of each cluster (arXiv:1511.06335, eq. 1)."""
    shares = []
    for x in bag:
        z = x
        if "encoder.0.weight" in weights:
            z = _dense(weights, "encoder.2", np.maximum(_dense(weights, "encoder.0", x), 0))
        distances = [math.fsum(((z - c) ** 2).tolist()) for c in weights["centroids"]]
        if assignment == "hard":
            share = [float(k == distances.index(min(distances))) for k in range(len(distances))]
        else:
            power = -(float(alpha) + 1) / 2
            share = [(1 + d / float(alpha)) ** power for d in distances]
            share = [one / math.fsum(share) for one in share]
        shares.append(share)
    mean = [math.fsum(share[k] for share in shares) / len(shares) for k in range(len(shares[0]))]
    return _dense(weights, "classifier", np.array(mean))


def deep_sets(weights: Weights, bag: Array) -> Array:
    """Return the bag logits (c,): relu(rho sum relu(phi x)), then the classifier."""
    total = sum(np.maximum(_dense(weights, "phi.0", x), 0) for x in bag)
    hidden = np.maximum(_dense(weights, "rho.0", np.asarray(total)), 0)
    return _dense(weights, "classifier", hidden)


def max_margin(weights: Weights, bag: Array) -> Array:
    """Return the largest margin of an instance for each class, (c,)."""
    scaled = [(x - weights["scaler.mean"]) / weights["scaler.scale"] for x in bag]
    margins = [weights["coef"] @ x + weights["intercept"] for x in scaled]
    return np.array([max(row[c] for row in margins) for c in range(len(weights["intercept"]))])


def mean_probability(weights: Weights, bag: Array) -> Array:
    """Return the logarithm of the mean over the instances of their class probabilities, (c,)."""
    shares = []
    for x in bag:
        hidden = np.maximum(_dense(weights, "instance_classifier.0", x), 0)
        logits = _dense(weights, "instance_classifier.2", hidden).tolist()
        powers = [math.exp(logit - max(logits)) for logit in logits]
        shares.append([power / math.fsum(powers) for power in powers])
    count = len(shares[0])
    return np.array([math.log(math.fsum(s[c] for s in shares) / len(shares)) for c in range(count)])


def top_instance(logits: Array, *, any_class: bool) -> int:
    """Return the first row with the largest probability, of any class or of the second one.

    Rows are compared by log p - log(1 - p), since probabilities near 1 are all alike.
    """
    odds = []
    for row in logits.tolist():
        best = row.index(max(row)) if any_class else 1
        others = [logit - row[best] for at, logit in enumerate(row) if at != best]
        high = max(others)
        odds.append(-high - math.log(math.fsum(math.exp(o - high) for o in others)))
    return odds.index(max(odds))


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


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


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


def dtfd(
    embeddings: Array,
    logits: Array,
    scores: Array,
    groups: Array,
    second: Weights,
    *,
    distill: str,
    count: int,
    each: int,
) -> Array:
    """Return the bag logits (c,) of DTFD-MIL for one division (arXiv:2203.12081).

    Args:
        embeddings: (n, l), in canonical order.
        logits: Attention logits of the first tier, (n,).
        scores: W h without the bias, (n, c).
        groups: Pseudo-bag of each instance, (n,).
        second: `branch`, `gate`, `attention` and `classifier` of the second tier.
        distill: afs, maxs or maxmins.
        count: Pseudo-bags.
        each: Instances of a side of each pseudo-bag.
    """
    vectors = []
    for group in range(count):
        rows = np.flatnonzero(groups == group).tolist()
        if not rows:
            # An empty pseudo-bag is a vector of zeros in AFS, and nothing in the others.
            vectors += [np.zeros(embeddings.shape[1])] if distill == "afs" else []
            continue
        peak = max(float(logits[row]) for row in rows)
        powers = {row: math.exp(float(logits[row]) - peak) for row in rows}
        mass = math.fsum(powers.values())
        if distill == "afs":
            vectors.append(sum(powers[row] / mass * embeddings[row] for row in rows))
            continue
        selected = dtfd_selected(rows, powers, mass, scores, distill, each)
        vectors += [embeddings[row] for row in selected]
    hidden = [
        np.tanh(_dense(second, "branch", v))
        * np.array([_sigmoid(x) for x in _dense(second, "gate", v).tolist()])
        for v in vectors
    ]
    weights = [float(_dense(second, "attention", h)[0]) for h in hidden]
    return _dense(second, "classifier", _weighted_mean(weights, vectors))


def dtfd_selected(
    rows: list[int],
    powers: Mapping[int, float],
    mass: float,
    scores: Array,
    distill: str,
    each: int,
) -> list[int]:
    """Return the rows of a pseudo-bag that maxs or maxmins selects, equal ones in order."""
    odds = {row: _log_odds(powers[row] / mass, scores[row].tolist()) for row in rows}
    found: list[int] = []
    for sign in (-1, 1) if distill == "maxmins" else (-1,):
        found += sorted(rows, key=lambda row: (sign * odds[row], row))[:each]
    return found


def _log_odds(share: float, scores: list[float]) -> float:
    """Return log-odds of the last class + log(c - 1), without rounding small shares away."""
    others = [share * (s - scores[-1]) for s in scores[:-1]]
    if not others:
        return 0.0
    high = max(others)
    if abs(high) < 0.1:
        return -math.log1p(math.fsum(math.expm1(o) for o in others) / len(others))
    return -high - math.log(math.fsum(math.exp(o - high) for o in others) / len(others))


def cell_group(column: int, row: int, seed: int, groups: int) -> int:
    """Return the pseudo-bag of a cell, splitmix64 in Python's own integers."""
    mask = (1 << 64) - 1
    mixed = seed
    for part in (column, row):
        mixed = ((mixed ^ (part & mask)) + 0x9E3779B97F4A7C15) & mask
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        mixed ^= mixed >> 31
    return mixed % groups
