"""DTFD with MaxS or MaxMinS and three classes or more: rank the instances that can be selected.

The rank of an instance in its pseudo-bag is that of its log-odds of the last class under
softmax(a_i W h_i). The Z of its attention a_i = exp(l_i) / Z changes with every field, and with it
the order changes. But the log-odds + log(c - 1) lie between a_i (s_last - max s) and
a_i (s_last - mean s), with the maximum and mean over the other classes' s = W h_i: both bounds are
exp(l_i) times a number of the instance, over Z. So an instance that k others of its pseudo-bag are
ahead of by these bounds can never be selected, for any Z. The others, usually few, are ranked anew
for each score.

Source:
    As `mergeable/dtfd.py`. The bounds: the mean of exponentials lies between the exponential of the
    mean (Jensen) and that of the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.banked.bank import NO_GROUP, Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays
from edge_mil.aggregators.mergeable.attention import bag_attention
from edge_mil.aggregators.mergeable.dtfd import (
    CLASS_SCORES,
    PseudoBags,
    SelectingAggregator,
    check_dtfd_batch,
    divide,
    group_numbers,
)
from edge_mil.aggregators.ranking import best_of_each, scaled_ranks
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array

EMBEDDINGS, LOGIT = "values", "logit"
"""Arrays of the bank."""
ROUNDING = 1e-9
"""By how much, of max(1, its size), a bound must be passed: bounds are rounded."""
SMALL = 0.5
"""Differences up to this are taken by expm1, which keeps the digits of tiny ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Selectable:
    """The instances that can be selected at one side of the pseudo-bags, now or later.

    Attributes:
        slots: division * groups + pseudo-bag, int64 (m,).
        rows: Row in the bank, int64 (m,).
        floors: Rank below its log-odds for any Z, float64 (m, 2); negated odds at the bottom.
        ceilings: Rank above them.
    """

    slots: Int64Array
    rows: Int64Array
    floors: Float64Array
    ceilings: Float64Array

    def take(self, chosen: Int64Array) -> Selectable:
        return Selectable(
            self.slots[chosen], self.rows[chosen], self.floors[chosen], self.ceilings[chosen]
        )

    def joined(self, other: Selectable) -> Selectable:
        return Selectable(
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.floors, other.floors]),
            np.concatenate([self.ceilings, other.ceilings]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RankedState:
    """The bag, its pseudo-bags' attention, and the instances that can be selected.

    Attributes:
        bank: Embeddings, attention logit and class scores of every instance.
        peak: Largest attention logit of each slot, float64 (s,); -inf where it is empty.
        mass: Sum of exp(logit - peak), float64 (s,).
        sides: The top, and with maxmins the bottom as well.
    """

    bank: Bank
    peak: Float64Array
    mass: Float64Array
    sides: tuple[Selectable, ...]

    @property
    def count(self) -> int:
        return self.bank.count


class DtfdRankedAggregator(SelectingAggregator[RankedState]):
    """Ranks the instances that are not ruled out; of equal ones the first in canonical order."""

    incremental = "banked"

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, pseudo_bags: PseudoBags
    ) -> None:
        super().__init__(value_dim, classifier, arrays, pseudo_bags)
        self._widths = {EMBEDDINGS: value_dim, LOGIT: 1, CLASS_SCORES: self.classes}

    def initial_state(self) -> RankedState:
        slots = self.pseudo_bags.rounds * self.pseudo_bags.groups
        none = Selectable(
            np.empty(0, dtype=np.int64),
            np.empty(0, dtype=np.int64),
            np.empty((0, 2)),
            np.empty((0, 2)),
        )
        return RankedState(
            Bank(self._widths),
            np.full(slots, -np.inf),
            np.zeros(slots),
            (none,) * len(self.signs),
        )

    def update(self, state: RankedState, batch: InstanceBatch) -> RankedState:
        check_dtfd_batch(batch, self.value_dim, self.classes)
        if len(batch) == 0 or batch.instance_order is None:
            return state
        arrays = {EMBEDDINGS: batch.embeddings, LOGIT: batch.attention_logits, **batch.extra}
        bank = Bank(self._widths).append(arrays, batch.instance_order)
        return self.merge(state, self._ranked(bank, group_numbers(batch, self.pseudo_bags)))

    def merge(self, left: RankedState, right: RankedState) -> RankedState:
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        # The bank puts the smaller bag behind the larger one.
        first, second = (right, left) if right.count > left.count else (left, right)
        bank = left.bank.extend(right.bank)
        sides = []
        for one, other in zip(first.sides, second.sides, strict=True):
            rows = other.rows + first.count
            behind = Selectable(other.slots, rows, other.floors, other.ceilings)
            sides.append(self._not_ruled_out(one.joined(behind)))
        peak = np.maximum(first.peak, second.peak)
        base = np.where(np.isneginf(peak), 0.0, peak)  # a pseudo-bag that both lack
        mass = np.exp(first.peak - base) * first.mass + np.exp(second.peak - base) * second.mass
        return RankedState(bank, peak, mass, tuple(sides))

    def selected(self, state: RankedState) -> tuple[Int64Array, Float32Array]:
        slots: list[Int64Array] = []
        rows: list[Int64Array] = []
        for sign, side in zip(self.signs, state.sides, strict=True):
            odds = sign * self._log_odds(state, side)
            keys = [state.bank.key(row) for row in side.rows.tolist()]
            selected = best_of_each(side.slots, odds[:, None], keys, self.pseudo_bags.each)
            slots.append(side.slots[selected])
            rows.append(side.rows[selected])
        return np.concatenate(slots), state.bank[EMBEDDINGS][np.concatenate(rows)]

    def attention(self, state: RankedState, batch: InstanceBatch) -> Float32Array | None:
        first = slice(0, self.pseudo_bags.groups)  # a division holds every instance once
        return bag_attention(state.peak[first], state.mass[first], batch)

    def to_bytes(self, state: RankedState) -> bytes:
        """Serialise the bank, from which the rest follows."""
        return state.bank.to_bytes()

    def from_bytes(self, data: bytes) -> RankedState:
        bank = Bank.from_bytes(data, self._widths)
        if bank.count == 0:
            return self.initial_state()
        groups = None if (bank.groups == NO_GROUP).all() else bank.groups
        return self._ranked(bank, divide(bank.cells, groups, self.pseudo_bags))

    def _ranked(self, bank: Bank, numbers: Int64Array) -> RankedState:
        """Return the state of a bank.

        Args:
            bank: The instances.
            numbers: Pseudo-bag of each in each division, int64 (n, rounds).
        """
        groups, rounds = self.pseudo_bags.groups, self.pseudo_bags.rounds
        # Every instance is in one slot of each division.
        slots = self.slots(numbers)
        rows = np.tile(np.arange(bank.count), rounds)
        # The softmax sums of each slot's attention: its Z.
        logits = bank[LOGIT][:, 0].astype(np.float64)
        tiled = np.tile(logits, rounds)
        peak, mass = np.full(groups * rounds, -np.inf), np.zeros(groups * rounds)
        np.maximum.at(peak, slots, tiled)
        np.add.at(mass, slots, np.exp(tiled - peak[slots]))
        # The bounds of each instance's log-odds, up to Z: exp(l) (s_last - max) and
        # exp(l) (s_last - mean). A rounded mean of equal scores can exceed them, and a floor would
        # be above its ceiling.
        scores = bank[CLASS_SCORES].astype(np.float64)
        last, highest = scores[:, -1], scores[:, :-1].max(axis=1)
        mean = np.minimum(scores[:, :-1].mean(axis=1), highest)
        below, above = scaled_ranks(logits, last - highest), scaled_ranks(logits, last - mean)
        sides = []
        for sign in self.signs:
            # At the bottom side the odds are negated, so floor and ceiling are swapped.
            floors, ceilings = (below, above) if sign > 0 else (-above, -below)
            bounds = (np.tile(ranks, (rounds, 1)) for ranks in (floors, ceilings))
            sides.append(self._not_ruled_out(Selectable(slots, rows, *bounds)))
        return RankedState(bank, peak, mass, tuple(sides))

    def _not_ruled_out(self, side: Selectable) -> Selectable:
        """Return the instances that fewer than k others of their pseudo-bag are surely ahead of."""
        # The k-th best floor of each slot is its bar; -inf where the slot holds fewer.
        order = np.lexsort((-side.floors[:, 1], -side.floors[:, 0], side.slots))
        slots = side.slots[order]
        slot_count = self.pseudo_bags.rounds * self.pseudo_bags.groups
        starts = np.searchsorted(slots, np.arange(slot_count + 1))
        last = starts[:-1] + self.pseudo_bags.each - 1
        full = last < starts[1:]
        bars = np.full((len(last), 2), -np.inf)
        bars[full] = side.floors[order[last[full]]]
        # A ceiling below its bar, by more than rounding, rules an instance out.
        bar = bars[side.slots]
        low = bar[:, 1] - ROUNDING * np.maximum(1.0, np.abs(bar[:, 1]))
        sign, magnitude = side.ceilings.T
        ruled_out = (sign < bar[:, 0]) | ((sign == bar[:, 0]) & (magnitude < low))
        return side if not ruled_out.any() else side.take(np.flatnonzero(~ruled_out))

    def _log_odds(self, state: RankedState, side: Selectable) -> Float64Array:
        """Return log-odds of the last class + log(c - 1), float64 (m,).

        That is -log(mean over the other classes of exp(a (s - s_last))).
        """
        logits = state.bank[LOGIT][side.rows, 0].astype(np.float64)
        attention = np.exp(logits - state.peak[side.slots]) / state.mass[side.slots]
        scores = state.bank[CLASS_SCORES][side.rows].astype(np.float64)
        differences = attention[:, None] * (scores[:, :-1] - scores[:, -1:])
        highest = differences.max(axis=1)
        large = np.abs(highest) > SMALL
        odds = np.empty(len(highest))
        # Tiny differences by expm1 and log1p, which keep their digits ...
        odds[~large] = -np.log1p(np.expm1(differences[~large]).mean(axis=1))
        # ... and large ones with the highest taken off, so that no exponential overflows.
        top = highest[large]
        odds[large] = -top - np.log(np.exp(differences[large] - top[:, None]).mean(axis=1))
        return odds
