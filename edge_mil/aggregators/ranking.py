"""The k first instances of each group, by an order that leaves nothing to chance between equals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_mil.types import Float64Array, Int64Array


def best_of_each(
    groups: Int64Array, ranks: Float64Array, keys: Sequence[bytes], each: int
) -> Int64Array:
    """Return the entries of the largest ranks of each group; of equal ones those of smallest key.

    Args:
        groups: Group of each entry, int64 (m,).
        ranks: Compared column by column, float64 (m, w).
        keys: Canonical key of each entry.
        each: Entries of a group that are wanted.

    Returns:
        Entries, int64 (n,), by group, then rank from the largest, then key.
    """
    columns = [-column for column in ranks.T[::-1]]
    order = np.lexsort((*columns, groups))
    sorted_groups, sorted_ranks = groups[order], ranks[order]
    is_tie = (sorted_groups[1:] == sorted_groups[:-1]) & (
        sorted_ranks[1:] == sorted_ranks[:-1]
    ).all(axis=1)
    if is_tie.any():
        # Keys are bytes of any length, which numpy cannot sort: only ties look at them.
        key_ranks = np.empty(len(order), dtype=np.int64)
        by_key = sorted(range(len(keys)), key=keys.__getitem__)
        key_ranks[by_key] = np.arange(len(order))
        order = np.lexsort((key_ranks, *columns, groups))
        sorted_groups = groups[order]
    position = np.arange(len(order)) - np.searchsorted(sorted_groups, sorted_groups)
    return np.asarray(order[position < each], dtype=np.int64)


def scaled_ranks(logits: Float64Array, factors: Float64Array) -> Float64Array:
    """Return ranks that order exp(logit) * factor, which may be out of the range of numbers.

    Args:
        logits: float64 (n,).
        factors: float64 (n,), of any sign.

    Returns:
        The sign, and the logarithm of the magnitude times the sign, float64 (n, 2). Negated they
        order the other way round.
    """
    signs = np.sign(factors)
    magnitudes = np.zeros(len(factors))
    some = signs != 0
    magnitudes[some] = signs[some] * (logits[some] + np.log(np.abs(factors[some])))
    return np.stack([signs, magnitudes], axis=1)
