"""DTFD with MaxS or MaxMinS and three classes or more: banked, ranks of those that can go on.

An instance's rank in its pseudo-bag is that of its log-odds of the last class under softmax of
a_i W h_i. What the attention a_i = exp(l_i) / Z is divided by changes with every field, and with it
the order. But the log-odds + log(c - 1) lie between a_i (s_last - max s) and a_i (s_last - mean s),
max and mean over the other classes' s = W h_i: both bounds are exp(l_i) times a number of the
instance, over Z. So an instance that k others of its pseudo-bag are ahead of by these bounds can
never go on, for any Z. The others, usually few, are ranked anew for each score.

Source:
    As `dtfd.py`; `aggregators.md`, 4.7, "Class". The bounds: the mean of exponentials lies between
    the exponential of the mean (Jensen) and that of the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.banked.bank import NO_GROUP, Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays
from edge_mil.aggregators.mergeable.dtfd import (
    SCORES,
    SecondTier,
    Tiers,
    check,
    divided,
    group_numbers,
)
from edge_mil.aggregators.ranking import best, signed_sizes
from edge_mil.errors import EmptyBagError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

VALUES, LOGIT = "values", "logit"
ROUNDING = 1e-9
"""By how much, of max(1, its size), a bound must be passed: bounds are rounded."""
SMALL = 0.5
"""Differences up to this are taken by expm1, which keeps the digits of tiny ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Runners:
    """The instances that may go on at one side of a pseudo-bag, now or later.

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

    def take(self, chosen: Int64Array) -> Runners:
        """Return some of them."""
        return Runners(
            self.slots[chosen], self.rows[chosen], self.floors[chosen], self.ceilings[chosen]
        )

    def joined(self, other: Runners) -> Runners:
        """Return both."""
        return Runners(
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.floors, other.floors]),
            np.concatenate([self.ceilings, other.ceilings]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RankedState:
    """The bag, its pseudo-bags' attention, and who may go on.

    Attributes:
        bank: Values, attention logit and class scores of every instance.
        peak: Largest attention logit of each slot, float64 (s,); -inf where it is empty.
        mass: Sum of exp(logit - peak), float64 (s,).
        sides: The top, and with maxmins the bottom as well.
    """

    bank: Bank
    peak: Float64Array
    mass: Float64Array
    sides: tuple[Runners, ...]

    @property
    def count(self) -> int:
        """Number of instances."""
        return self.bank.count


class DtfdRankedAggregator(Aggregator[RankedState]):
    """Ranks the instances that are not ruled out; of equal ones the first in canonical order."""

    incremental = "banked"
    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, tiers: Tiers
    ) -> None:
        """Take the weights: `branch`, `gate`, `attention` and `classifier` of the second tier."""
        self.tiers, self._tail, self.value_dim = tiers, SecondTier(arrays, classifier), value_dim
        self._widths = {VALUES: value_dim, LOGIT: 1, SCORES: len(classifier.classes)}
        self._signs = (1.0,) if tiers.distill == "maxs" else (1.0, -1.0)

    def initial_state(self) -> RankedState:
        """Return the empty bag."""
        slots = self.tiers.rounds * self.tiers.groups
        nobody = Runners(
            np.empty(0, dtype=np.int64),
            np.empty(0, dtype=np.int64),
            np.empty((0, 2)),
            np.empty((0, 2)),
        )
        return RankedState(
            Bank(self._widths),
            np.full(slots, -np.inf),
            np.zeros(slots),
            (nobody,) * len(self._signs),
        )

    def update(self, state: RankedState, batch: InstanceBatch) -> RankedState:
        """Return the bag after also seeing `batch`."""
        if len(batch) == 0:
            return state
        check(batch, self.value_dim)
        assert batch.instance_order is not None
        arrays = {VALUES: batch.values, LOGIT: batch.attention_logits, **batch.extra}
        bank = Bank(self._widths).append(arrays, batch.instance_order)
        return self.merge(state, self._ranked(bank, group_numbers(batch, self.tiers)))

    def merge(self, left: RankedState, right: RankedState) -> RankedState:
        """Return the bag of both."""
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        # The bank puts the smaller bag behind the larger one.
        first, second = (right, left) if right.count > left.count else (left, right)
        bank = left.bank.extend(right.bank)
        sides = []
        for one, other in zip(first.sides, second.sides, strict=True):
            behind = Runners(other.slots, other.rows + first.count, other.floors, other.ceilings)
            sides.append(self._not_ruled_out(one.joined(behind)))
        peak = np.maximum(first.peak, second.peak)
        base = np.where(np.isneginf(peak), 0.0, peak)  # a pseudo-bag that both lack
        mass = np.exp(first.peak - base) * first.mass + np.exp(second.peak - base) * second.mass
        return RankedState(bank, peak, mass, tuple(sides))

    def instances(self, state: RankedState) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: RankedState) -> SlideScore:
        """Return the slide-level score of the instances seen so far."""
        if state.count == 0:
            raise EmptyBagError
        slots: list[Int64Array] = []
        rows: list[Int64Array] = []
        for sign, side in zip(self._signs, state.sides, strict=True):
            odds = sign * self._odds(state, side)
            keys = [state.bank.key(row) for row in side.rows.tolist()]
            first = best(side.slots, odds[:, None], keys, self.tiers.each)
            slots.append(side.slots[first])
            rows.append(side.rows[first])
        division = np.concatenate(slots) // self.tiers.groups
        values = state.bank[VALUES][np.concatenate(rows)].astype(np.float64)
        divisions = [values[division == number] for number in range(self.tiers.rounds)]
        return self._tail.score(divisions, state.count)

    def scores(self, states: list[RankedState]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one."""
        return [self.score(s) if s.count else None for s in states]

    def attention(self, state: RankedState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the first tier's attention over the bag, (n, 1)."""
        # The first division holds every instance once.
        peak, mass = state.peak[: self.tiers.groups], state.mass[: self.tiers.groups]
        highest = peak.max()
        whole = float((np.exp(peak - highest) * mass).sum())
        logits = batch.attention_logits.astype(np.float64)
        return np.asarray(np.exp(logits - highest) / whole, dtype=np.float32)

    def to_bytes(self, state: RankedState) -> bytes:
        """Serialise a state: its bank, from which the rest follows."""
        return state.bank.to_bytes()

    def from_bytes(self, data: bytes) -> RankedState:
        """Read what `to_bytes` wrote."""
        bank = Bank.from_bytes(data, self._widths)
        if bank.count == 0:
            return self.initial_state()
        groups = None if (bank.groups == NO_GROUP).all() else bank.groups
        return self._ranked(bank, divided(bank.cells, groups, self.tiers))

    def _ranked(self, bank: Bank, numbers: Int64Array) -> RankedState:
        """Return the state of a bank, none of which is in a state yet."""
        groups, rounds = self.tiers.groups, self.tiers.rounds
        slots = (numbers + groups * np.arange(rounds)).T.ravel()
        logits = bank[LOGIT][:, 0].astype(np.float64)
        everyone = np.tile(logits, rounds)
        peak, mass = np.full(groups * rounds, -np.inf), np.zeros(groups * rounds)
        np.maximum.at(peak, slots, everyone)
        np.add.at(mass, slots, np.exp(everyone - peak[slots]))
        scores = bank[SCORES].astype(np.float64)
        last, highest = scores[:, -1], scores[:, :-1].max(axis=1)
        # A rounded mean of equal scores can exceed them, and a floor would be above its ceiling.
        mean = np.minimum(scores[:, :-1].mean(axis=1), highest)
        below, above = signed_sizes(logits, last - highest), signed_sizes(logits, last - mean)
        rows = np.tile(np.arange(bank.count), rounds)
        sides = []
        for sign in self._signs:
            floors, ceilings = (below, above) if sign > 0 else (-above, -below)
            tiled = (np.tile(ranks, (rounds, 1)) for ranks in (floors, ceilings))
            sides.append(self._not_ruled_out(Runners(slots, rows, *tiled)))
        return RankedState(bank, peak, mass, tuple(sides))

    def _not_ruled_out(self, side: Runners) -> Runners:
        """Return who has fewer than k others of the pseudo-bag surely ahead."""
        order = np.lexsort((-side.floors[:, 1], -side.floors[:, 0], side.slots))
        slots = side.slots[order]
        starts = np.searchsorted(slots, np.arange(self.tiers.rounds * self.tiers.groups + 1))
        last = starts[:-1] + self.tiers.each - 1  # the k-th best floor of a slot
        full = last < starts[1:]
        bars = np.full((len(last), 2), -np.inf)
        bars[full] = side.floors[order[last[full]]]
        bar = bars[side.slots]
        low = bar[:, 1] - ROUNDING * np.maximum(1.0, np.abs(bar[:, 1]))
        sign, size = side.ceilings.T
        ruled_out = (sign < bar[:, 0]) | ((sign == bar[:, 0]) & (size < low))
        return side if not ruled_out.any() else side.take(np.flatnonzero(~ruled_out))

    def _odds(self, state: RankedState, side: Runners) -> Float64Array:
        """Return log-odds of the last class + log(c - 1), float64 (m,)."""
        logits = state.bank[LOGIT][side.rows, 0].astype(np.float64)
        shares = np.exp(logits - state.peak[side.slots]) / state.mass[side.slots]
        scores = state.bank[SCORES][side.rows].astype(np.float64)
        ahead = shares[:, None] * (scores[:, :-1] - scores[:, -1:])
        highest = ahead.max(axis=1)
        far = np.abs(highest) > SMALL
        odds = np.empty(len(highest))
        odds[~far] = -np.log1p(np.expm1(ahead[~far]).mean(axis=1))
        top = highest[far]
        odds[far] = -top - np.log(np.exp(ahead[far] - top[:, None]).mean(axis=1))
        return odds
