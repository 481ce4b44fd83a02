"""The k first of each pseudo-bag, by an order that equal instances do not leave to chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_mil.types import Float64Array, Int64Array


def best(slots: Int64Array, ranks: Float64Array, keys: Sequence[bytes], each: int) -> Int64Array:
    """Return the entries of the largest ranks of each slot; of equal ones those of smallest key.

    Args:
        slots: Slot of each entry, int64 (m,).
        ranks: Compared column by column, float64 (m, w).
        keys: Canonical key of each entry.
        each: Entries of a slot that are wanted.

    Returns:
        Entries, int64 (n,), by slot, then rank from the largest, then key.
    """
    columns = [-column for column in ranks.T[::-1]]
    order = np.lexsort((*columns, slots))
    sorted_slots, sorted_ranks = slots[order], ranks[order]
    alike = (sorted_slots[1:] == sorted_slots[:-1]) & (sorted_ranks[1:] == sorted_ranks[:-1]).all(
        axis=1
    )
    if alike.any():
        # Keys are bytes of any length, which numpy cannot sort: only ties look at them.
        positions = np.empty(len(order), dtype=np.int64)
        by_key = sorted(range(len(keys)), key=keys.__getitem__)
        positions[by_key] = np.arange(len(order))
        order = np.lexsort((positions, *columns, slots))
        sorted_slots = slots[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_slots, sorted_slots)
    return np.asarray(order[place < each], dtype=np.int64)


def signed_sizes(logits: Float64Array, factors: Float64Array) -> Float64Array:
    """Return ranks that order exp(logit) * factor, which may be out of the range of numbers.

    Args:
        logits: float64 (n,).
        factors: float64 (n,), of any sign.

    Returns:
        The sign, and the logarithm of the size times the sign, float64 (n, 2). Negated they order
        the other way round.
    """
    signs = np.sign(factors)
    sizes = np.zeros(len(factors))
    some = signs != 0
    sizes[some] = signs[some] * (logits[some] + np.log(np.abs(factors[some])))
    return np.stack([signs, sizes], axis=1)
