"""DTFD with MaxS or MaxMinS and up to two classes: keep the few instances that are selected.

The rank of an instance in its pseudo-bag is that of its probability of the last class,
softmax(a_i W h_i) with the attention a_i = exp(l_i) / Z. Of two classes it grows with
a_i (w_1 - w_0) . h_i, and Z is one positive number for the pseudo-bag: so the sign of
(w_1 - w_0) . h_i, and then l_i + log |(w_1 - w_0) . h_i|, order the instances exactly, whatever
else is in the bag. The k first of each side are therefore enough. Of equal ranks the first in
canonical order is taken.

Source:
    As `dtfd.py`; `docs/design/aggregators.md`, "DTFD-MIL".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.aggregators.mergeable.attention import bag_attention
from edge_mil.aggregators.mergeable.dtfd import (
    CLASS_SCORES,
    SelectingAggregator,
    check_dtfd_batch,
    group_numbers,
)
from edge_mil.aggregators.ranking import best_of_each, scaled_ranks
from edge_mil.aggregators.state_bytes import arrays_to_bytes, join_keys, split_keys, stored_arrays
from edge_mil.errors import StoreError
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """The k instances of the largest ranks of each pseudo-bag.

    Attributes:
        slots: division * groups + pseudo-bag, int64 (m,), ascending.
        ranks: float64 (m, 2), from the largest within a slot; negated at the bottom side.
        keys: Canonical key of each.
        embeddings: float32 (m, l).
    """

    slots: Int64Array
    ranks: Float64Array
    keys: tuple[bytes, ...]
    embeddings: Float32Array

    def take(self, rows: Int64Array) -> Selected:
        keys = tuple(self.keys[row] for row in rows.tolist())
        return Selected(self.slots[rows], self.ranks[rows], keys, self.embeddings[rows])

    def joined(self, other: Selected) -> Selected:
        """Return the instances of both, not yet in order."""
        return Selected(
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.ranks, other.ranks]),
            self.keys + other.keys,
            np.concatenate([self.embeddings, other.embeddings]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SelectionState:
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
    sides: tuple[Selected, ...]


class DtfdTopAggregator(SelectingAggregator[SelectionState]):
    """Keeps k instances of each side of each pseudo-bag; empty pseudo-bags give none."""

    def initial_state(self) -> SelectionState:
        none = Selected(
            np.empty(0, dtype=np.int64),
            np.empty((0, 2)),
            (),
            np.empty((0, self.value_dim), dtype=np.float32),
        )
        return SelectionState(0, -np.inf, 0.0, (none,) * len(self.signs))

    def ranks(self, logits: Float64Array, scores: Float64Array) -> Float64Array:
        """Return what orders instances in their pseudo-bag, float64 (n, 2).

        Args:
            logits: Attention logits of the first tier, float64 (n,).
            scores: Class scores W h without the bias, float64 (n, c).
        """
        # The lead is 0 with one class, so that all ranks are equal.
        return scaled_ranks(logits, scores[:, -1] - scores[:, 0])

    def update(self, state: SelectionState, batch: InstanceBatch) -> SelectionState:
        check_dtfd_batch(batch, self.value_dim, self.classes)
        if len(batch) == 0 or batch.instance_order is None:
            return state
        logits = batch.attention_logits[:, 0].astype(np.float64)
        scores = batch.extra[CLASS_SCORES].astype(np.float64)
        # Every instance is in one slot of each division, with the same rank.
        slots, rounds = self.slots(group_numbers(batch, self.pseudo_bags)), self.pseudo_bags.rounds
        ranks, keys = np.tile(self.ranks(logits, scores), (rounds, 1)), batch.instance_order.keys
        sides = []
        for sign in self.signs:
            entries = best_of_each(slots, sign * ranks, keys * rounds, self.pseudo_bags.each)
            rows = entries % len(batch)
            chosen = tuple(keys[row] for row in rows.tolist())
            sides.append(
                Selected(slots[entries], sign * ranks[entries], chosen, batch.embeddings[rows])
            )
        peak = float(logits.max())
        mass = float(np.exp(logits - peak).sum())
        return self.merge(state, SelectionState(len(batch), peak, mass, tuple(sides)))

    def merge(self, left: SelectionState, right: SelectionState) -> SelectionState:
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        sides = []
        for one, other in zip(left.sides, right.sides, strict=True):
            both, each = one.joined(other), self.pseudo_bags.each
            sides.append(both.take(best_of_each(both.slots, both.ranks, both.keys, each)))
        peak = max(left.peak, right.peak)
        mass = np.exp(left.peak - peak) * left.mass + np.exp(right.peak - peak) * right.mass
        return SelectionState(left.count + right.count, peak, float(mass), tuple(sides))

    def selected(self, state: SelectionState) -> tuple[Int64Array, Float32Array]:
        slots = np.concatenate([side.slots for side in state.sides])
        return slots, np.concatenate([side.embeddings for side in state.sides])

    def attention(self, state: SelectionState, batch: InstanceBatch) -> Float32Array | None:
        return bag_attention(np.array([state.peak]), np.array([state.mass]), batch)

    def to_bytes(self, state: SelectionState) -> bytes:
        arrays: dict[str, npt.NDArray[Any]] = {
            "count": np.array(state.count, dtype="<i8"),
            "attention": np.array([state.peak, state.mass], dtype="<f8"),
        }
        for number, side in enumerate(state.sides):
            text, lengths = join_keys(side.keys)
            arrays[f"slots_{number}"], arrays[f"ranks_{number}"] = side.slots, side.ranks
            arrays[f"values_{number}"] = side.embeddings
            arrays[f"lengths_{number}"], arrays[f"keys_{number}"] = lengths, text
        return arrays_to_bytes(arrays)

    def from_bytes(self, data: bytes) -> SelectionState:
        with stored_arrays(data) as stored:
            sides = tuple(_stored_side(stored, number) for number in range(len(self.signs)))
            count, (peak, mass) = int(stored["count"]), stored["attention"].tolist()
        if any(side.embeddings.shape != (len(side.keys), self.value_dim) for side in sides):
            raise StoreError(
                "A stored aggregator state does not fit this bundle; the session is of another."
            )
        return SelectionState(count, peak, mass, sides)


def _stored_side(stored: Mapping[str, npt.NDArray[Any]], number: int) -> Selected:
    keys = split_keys(stored[f"keys_{number}"], stored[f"lengths_{number}"])
    slots, ranks = stored[f"slots_{number}"], stored[f"ranks_{number}"]
    return Selected(slots, ranks, keys, stored[f"values_{number}"])
