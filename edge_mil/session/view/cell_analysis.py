"""The outputs of a head for the bag without each of its cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge_mil.pipeline import Model
from edge_mil.session.bag import Bag
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.view.leave_one_out import (
    CHUNK,
    AttentionParts,
    all_but_each,
    fold,
    has_attention_parts,
    outputs_of_states,
)
from edge_mil.store import InstanceKind, InstanceRow, SessionReader
from edge_mil.types import Float32Array, Float64Array, InstanceBatch

Chunk = tuple[list[str], Float64Array]
"""Instance keys, and the outputs for the bag without each, float64 (n, c); NaN: no score."""


class CellAnalysis:
    """Attends the stored features again, and pools the bag without each of them."""

    def __init__(self, model: Model, instances: InstanceMap[Any], bag: Bag, width: int) -> None:
        """Take the parts.

        Args:
            model: Its head scores.
            instances: Knows the order of instances.
            bag: The bag that is analysed.
            width: Number of the head's outputs.
        """
        self._model, self._instances, self._bag, self._width = model, instances, bag, width

    def by_running_sums(self, records: SessionReader) -> Iterator[Chunk]:
        """Yield the cells of many fields at a time, for attention pooling.

        A chunk holds all cells of some fields. What lies outside of it is known from the states
        of the other fields, so features are read and attended once.
        """
        aggregator, bag = self._model.aggregator, self._bag
        sequences, states = list(bag.states), list(bag.states.values())
        if not states or not has_attention_parts(aggregator):
            return
        groups = _groups([state.count for state in states])
        fields = AttentionParts.of_states(states, bag.total.peak)
        outside = AttentionParts.joined(fields.take(at).total() for at in groups).without_each()
        for number, at in enumerate(groups):
            held = [
                row
                for row in records.instances_between(sequences[at.start], sequences[at.stop - 1])
                if row.kind is InstanceKind.HELD and row.sequence in bag.states
            ]
            batch = self._attend(held)
            others = AttentionParts.of_instances(batch, bag.total.peak).without_each()
            bags = others.plus(outside.take(slice(number, number + 1)))
            found = bags.outputs(aggregator, [bag.total.count - 1] * len(held), self._width)
            for i in np.flatnonzero(np.isnan(found).any(axis=1)):
                # Beside this cell the weights of all others underflow.
                rest = batch.take(np.delete(np.arange(len(held)), i))
                far = fold(aggregator, (*states[: at.start], *states[at.stop :]))
                found[i] = outputs_of_states(
                    aggregator, [aggregator.update(far, rest)], self._width
                )[0]
            yield [row.instance_key for row in held], found

    def by_states(self, records: SessionReader, without_each: Sequence[Any]) -> Iterator[Chunk]:
        """Yield the cells of one field after the other, for any mergeable head.

        Args:
            records: The session's.
            without_each: The state of the bag without each field.
        """
        aggregator, empty = self._model.aggregator, self._model.aggregator.initial_state()
        keys: list[str] = []
        states: list[Any] = []
        for sequence, rest in zip(self._bag.states, without_each, strict=True):
            held = held_rows(records, sequence)
            batch = self._attend(held)
            single = [aggregator.update(empty, batch.take(np.array([i]))) for i in range(len(held))]
            keys += [row.instance_key for row in held]
            states += [aggregator.merge(rest, o) for o in all_but_each(aggregator, single)]
            if len(keys) >= CHUNK:
                yield keys, outputs_of_states(aggregator, states, self._width)
                keys, states = [], []
        yield keys, outputs_of_states(aggregator, states, self._width)

    def _attend(self, held: Sequence[InstanceRow]) -> InstanceBatch:
        features = stacked([row.features for row in held])
        order = self._instances.order([row.instance_key for row in held])
        return self._model.attend(features, order)


def held_rows(records: SessionReader, sequence: int, *, arrays: bool = True) -> list[InstanceRow]:
    """Return the instances of a field that are in the bag."""
    rows = records.instances(sequence, arrays=arrays)
    return [row for row in rows if row.kind is InstanceKind.HELD]


def stacked(arrays: Sequence[bytes | None]) -> Float32Array:
    """Return stored vectors of one length as rows, float32 (n, d)."""
    joined = b"".join(array or b"" for array in arrays)
    return np.frombuffer(joined, dtype="<f4").reshape(len(arrays), -1)


def _groups(counts: Sequence[int]) -> list[slice]:
    """Divide fields into runs of about CHUNK instances."""
    groups, start, total = [], 0, 0
    for at, count in enumerate(counts):
        total += count
        if total >= CHUNK:
            groups.append(slice(start, at + 1))
            start, total = at + 1, 0
    if start < len(counts):
        groups.append(slice(start, len(counts)))
    return groups
