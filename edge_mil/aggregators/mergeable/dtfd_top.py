"""DTFD with MaxS or MaxMinS and up to two classes: mergeable, the few instances that go on.

An instance's rank in its pseudo-bag is that of its probability of the last class, softmax of
a_i W h_i with the attention a_i. Of two classes it grows with a_i (w_1 - w_0) . h_i, and what a_i
is divided by is one positive number for the pseudo-bag: so the instance's own sign and
logit + log|(w_1 - w_0) . h_i| order it, exactly, whatever else is in the bag. Of equal ranks the
first in canonical order counts.

Source:
    As `dtfd.py`; `aggregators.md`, 4.7, "Class".
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.dense import Arrays
from edge_mil.aggregators.mergeable.dtfd import SCORES, SecondTier, Tiers, check, group_numbers
from edge_mil.aggregators.ranking import best, signed_sizes
from edge_mil.errors import EmptyBagError, StoreError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The instances of the largest ranks of each pseudo-bag; as many as `Tiers.each` of each.

    Attributes:
        slots: division * groups + pseudo-bag, int64 (m,), ascending.
        ranks: float64 (m, 2), from the largest within a slot; negated at the bottom side.
        keys: Canonical key of each.
        values: float32 (m, l).
    """

    slots: Int64Array
    ranks: Float64Array
    keys: tuple[bytes, ...]
    values: Float32Array

    def take(self, rows: Int64Array) -> Chosen:
        """Return some of them."""
        keys = tuple(self.keys[row] for row in rows.tolist())
        return Chosen(self.slots[rows], self.ranks[rows], keys, self.values[rows])

    def joined(self, other: Chosen) -> Chosen:
        """Return both, not yet in order."""
        return Chosen(
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.ranks, other.ranks]),
            self.keys + other.keys,
            np.concatenate([self.values, other.values]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TopState:
    """What the score needs of a bag of any size.

    Attributes:
        count: Instances.
        peak: Largest attention logit; -inf for the empty bag.
        mass: Sum of exp(logit - peak).
        sides: The top, and with maxmins the bottom as well.
    """

    count: int
    peak: float
    mass: float
    sides: tuple[Chosen, ...]


class DtfdTopAggregator(Aggregator[TopState]):
    """Keeps k instances of a side of each pseudo-bag; empty pseudo-bags give none."""

    needs_instance_order = True

    def __init__(
        self, value_dim: int, classifier: Classifier, arrays: Arrays, tiers: Tiers
    ) -> None:
        """Take the weights: `branch`, `gate`, `attention` and `classifier` of the second tier."""
        self.tiers, self._tail, self.value_dim = tiers, SecondTier(arrays, classifier), value_dim
        self._signs = (1.0,) if tiers.distill == "maxs" else (1.0, -1.0)

    def initial_state(self) -> TopState:
        """Return the state of the empty bag."""
        none = Chosen(
            np.empty(0, dtype=np.int64),
            np.empty((0, 2)),
            (),
            np.empty((0, self.value_dim), dtype=np.float32),
        )
        return TopState(0, -np.inf, 0.0, (none,) * len(self._signs))

    def update(self, state: TopState, batch: InstanceBatch) -> TopState:
        """Return the state after also seeing `batch`."""
        if len(batch) == 0:
            return state
        check(batch, self.value_dim)
        assert batch.instance_order is not None
        numbers = group_numbers(batch, self.tiers) + self.tiers.groups * np.arange(
            self.tiers.rounds
        )
        logits = batch.attention_logits[:, 0].astype(np.float64)
        scores = batch.extra[SCORES].astype(np.float64)
        ahead = scores[:, -1] - scores[:, 0]  # of one class nothing is ahead: all are alike
        slots, keys = numbers.T.ravel(), batch.instance_order.keys
        ranks = np.tile(signed_sizes(logits, ahead), (self.tiers.rounds, 1))
        sides = []
        for sign in self._signs:
            rows = best(slots, sign * ranks, keys * self.tiers.rounds, self.tiers.each)
            at = rows % len(batch)
            named = tuple(keys[row] for row in at.tolist())
            sides.append(Chosen(slots[rows], sign * ranks[rows], named, batch.values[at]))
        peak = float(logits.max())
        mass = float(np.exp(logits - peak).sum())
        return self.merge(state, TopState(len(batch), peak, mass, tuple(sides)))

    def merge(self, left: TopState, right: TopState) -> TopState:
        """Return the state of the two bags taken together."""
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        sides = []
        for one, other in zip(left.sides, right.sides, strict=True):
            both = one.joined(other)
            sides.append(both.take(best(both.slots, both.ranks, both.keys, self.tiers.each)))
        peak = max(left.peak, right.peak)
        mass = np.exp(left.peak - peak) * left.mass + np.exp(right.peak - peak) * right.mass
        return TopState(left.count + right.count, peak, float(mass), tuple(sides))

    def instances(self, state: TopState) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: TopState) -> SlideScore:
        """Return the slide-level score of the instances seen so far."""
        if state.count == 0:
            raise EmptyBagError
        slots = np.concatenate([side.slots for side in state.sides])
        values = np.concatenate([side.values for side in state.sides]).astype(np.float64)
        division = slots // self.tiers.groups
        divisions = [values[division == number] for number in range(self.tiers.rounds)]
        return self._tail.score(divisions, state.count)

    def scores(self, states: list[TopState]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one."""
        return [self.score(s) if s.count else None for s in states]

    def attention(self, state: TopState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the first tier's attention over the bag, (n, 1)."""
        logits = batch.attention_logits.astype(np.float64)
        return np.asarray(np.exp(logits - state.peak) / state.mass, dtype=np.float32)

    def to_bytes(self, state: TopState) -> bytes:
        """Serialise a state."""
        arrays: dict[str, Any] = {
            "count": np.array(state.count, dtype="<i8"),
            "attention": np.array([state.peak, state.mass], dtype="<f8"),
        }
        for number, side in enumerate(state.sides):
            arrays[f"slots_{number}"], arrays[f"ranks_{number}"] = side.slots, side.ranks
            arrays[f"values_{number}"] = side.values
            arrays[f"lengths_{number}"] = np.array([len(key) for key in side.keys], dtype="<i8")
            arrays[f"keys_{number}"] = np.frombuffer(b"".join(side.keys), dtype=np.uint8)
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()

    def from_bytes(self, data: bytes) -> TopState:
        """Read what `to_bytes` wrote."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                sides = tuple(_side(stored, number) for number in range(len(self._signs)))
                count, (peak, mass) = int(stored["count"]), stored["attention"].tolist()
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise StoreError(f"A stored aggregator state cannot be read ({error}).") from error
        if any(side.values.shape != (len(side.keys), self.value_dim) for side in sides):
            raise StoreError(
                "A stored aggregator state does not fit this bundle; the session is of another."
            )
        return TopState(count, peak, mass, sides)


def _side(stored: Mapping[str, Any], number: int) -> Chosen:
    text, ends = stored[f"keys_{number}"].tobytes(), np.cumsum(stored[f"lengths_{number}"])
    keys = tuple(
        text[end - length : end]
        for end, length in zip(ends.tolist(), stored[f"lengths_{number}"].tolist(), strict=True)
    )
    slots, ranks = stored[f"slots_{number}"], stored[f"ranks_{number}"]
    return Chosen(slots, ranks, keys, stored[f"values_{number}"])
