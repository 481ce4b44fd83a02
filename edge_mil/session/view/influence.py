"""The influence of each field and each cell on the score, computed when it is asked for.

Influence is the logit of a class with the field (or cell) in the bag minus the logit without it.
Both bags are folded; nothing is subtracted from a state. So it is exact for every mergeable head.
Banked and whole-bag heads have none: each number would be a run over the whole bag.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_mil.errors import SessionStateError, UsageError
from edge_mil.pipeline import Model
from edge_mil.session.answers import read_answer
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.stored_fields import FieldHeaders
from edge_mil.session.view.layers import to_grid
from edge_mil.session.view.records import FieldRecord
from edge_mil.store import InstanceKind, InstanceRow, SessionReader
from edge_mil.types import Float32Array, InfluenceMap, InstanceBatch, SlideScore

CHUNK = 4096
"""States that are scored in one run of the classifier: bounds the memory."""


class InfluenceAnalysis:
    """Analyses one session's records, as they were when it was made."""

    def __init__(
        self, model: Model, store: SessionReader, instances: InstanceMap[Any], mpp: float
    ) -> None:
        """Read the states of all fields.

        Args:
            model: Its head scores.
            store: The session's records.
            instances: Knows where instances lie, and their order.
            mpp: Pixel size of the camera, µm/px.

        Raises:
            StoreError: A state cannot be read.
        """
        self._model, self._store, self._instances = model, store, instances
        self._mpp = mpp
        aggregator = model.aggregator
        self._states = [(s, aggregator.from_bytes(data)) for s, data in store.states()]
        self._mergeable = aggregator.incremental == "mergeable"
        total = aggregator.initial_state()
        for _, state in self._states:
            total = aggregator.merge(total, state)
        self._total = total

    @functools.cached_property
    def _without_each(self) -> list[Any]:
        """The state of the bag without each field; computed only where it is asked for."""
        states = [state for _, state in self._states]
        return _all_but_each(self._model.aggregator, states) if self._mergeable else []

    def fields(self) -> list[FieldRecord]:
        """Return every field in the order of sequence numbers."""
        shares, cells = self._attention_shares()
        headers, records = FieldHeaders(self._store, self._mpp), []
        for row in self._store.fields():
            header = headers.read(row.sequence, row.header)
            location_id = header.pop("place")  # the stored files keep this name
            records.append(
                FieldRecord(
                    result=read_answer(row.answer),
                    cells=cells[row.sequence],
                    removed=row.removed,
                    location_id=location_id,
                    attention_share=shares[row.sequence],
                    **header,
                )
            )
        return records

    def top_fields(self, count: int, class_name: str = "") -> list[FieldRecord]:
        """Return the fields of largest influence on a class, either sign, largest first."""
        influence = self.influences(class_name)
        found = [
            dataclasses.replace(record, influence=influence[record.sequence])
            for record in self.fields()
            if record.sequence in influence
        ]
        found.sort(key=lambda r: (-abs(r.influence or 0.0), r.sequence))
        return found[:count]

    def influences(self, class_name: str = "") -> dict[int, float]:
        """Return sequence -> influence on the logit.

        Empty where one field is the whole bag, and for heads that are not mergeable.
        """
        index = self._class(class_name)
        if not self._without_each:
            return {}
        with_all = self._model.aggregator.scores([self._total])[0]
        without = self._scores(self._without_each)
        return {
            sequence: _outputs(with_all)[index] - _outputs(score)[index]
            for (sequence, _), score in zip(self._states, without, strict=True)
            if with_all is not None and score is not None
        }

    def influence_map(self, class_name: str, revision: int) -> InfluenceMap:
        """Return each cell's influence on the logit of a class.

        Raises:
            SessionStateError: The fields have no positions, lie too far apart, or the head is not
                mergeable.
            UsageError: There is no such class.
        """
        index = self._class(class_name)
        spec = self._model.bundle.manifest.aggregator
        if spec.incremental != "mergeable":
            raise SessionStateError(
                f"There is no map of influence for {spec.architecture}: it is a "
                f"{spec.incremental} head, and each cell would need a run over the whole bag."
            )
        with_all = self._model.aggregator.scores([self._total])[0]
        influence: dict[str, float] = {}
        for keys, states in self._chunks_without_each_cell():
            for key, score in zip(keys, self._scores(states), strict=True):
                # Without the only cell of the bag there is no score to compare with.
                influence[key] = 0.0
                if with_all is not None and score is not None:
                    influence[key] = _outputs(with_all)[index] - _outputs(score)[index]
        grid = to_grid(influence, self._instances.extent)
        return InfluenceMap(
            self._model.bundle.manifest.task.classes[index],
            grid.origin_x_um,
            grid.origin_y_um,
            grid.um_per_column,
            grid.um_per_row,
            grid.values,
            revision,
        )

    def _chunks_without_each_cell(self) -> Iterator[tuple[list[str], list[Any]]]:
        """Yield instance keys with the states of the bag without each, about CHUNK at a time."""
        keys: list[str] = []
        states: list[Any] = []
        for (sequence, _), rest in zip(self._states, self._without_each, strict=True):
            for row, without in self._without_each_cell(sequence, rest):
                keys.append(row.instance_key)
                states.append(without)
            if len(keys) >= CHUNK:
                yield keys, states
                keys, states = [], []
        yield keys, states

    def _without_each_cell(self, sequence: int, rest: Any) -> list[tuple[InstanceRow, Any]]:
        """Return each held row of a field, and the state of the bag without it."""
        rows = self._held(sequence)
        aggregator = self._model.aggregator
        features = np.stack([np.frombuffer(r.features or b"", dtype="<f4") for r in rows])
        order = self._instances.order([r.instance_key for r in rows])
        batch = self._model.attend(features, order)
        empty = aggregator.initial_state()
        single = [aggregator.update(empty, batch.take(np.array([i]))) for i in range(len(rows))]
        others = _all_but_each(aggregator, single)
        return [(r, aggregator.merge(rest, o)) for r, o in zip(rows, others, strict=True)]

    def _held(self, sequence: int) -> list[InstanceRow]:
        rows = self._store.instances(sequence)
        return [row for row in rows if row.kind is InstanceKind.HELD]

    def _attention_shares(self) -> tuple[dict[int, float], dict[int, int]]:
        shares: dict[int, float] = defaultdict(float)
        cells: dict[int, int] = defaultdict(int)
        channels = self._model.bundle.manifest.aggregator.channels
        for sequence, _ in self._states:
            rows = self._held(sequence)
            cells[sequence] = len(rows)
            if channels and rows and self._mergeable:
                logits: Float32Array = np.stack(
                    [np.frombuffer(r.attention_logits or b"", dtype="<f4") for r in rows]
                )
                # Attention needs the logits alone, so the features stay on the disk.
                alone = InstanceBatch(np.empty((len(rows), 0), dtype=np.float32), logits)
                share = self._model.aggregator.attention(self._total, alone)
                shares[sequence] = 0.0 if share is None else float(share.sum(axis=0).mean())
        return shares, cells

    def _class(self, name: str) -> int:
        """Return the index of a class; "" is the last one, the positive one of two."""
        classes = self._model.bundle.manifest.task.classes
        if not name:
            return len(classes) - 1
        if name not in classes:
            raise UsageError(f"There is no class {name!r}; name one of {', '.join(classes)}.")
        return classes.index(name)

    def _scores(self, states: list[Any]) -> list[SlideScore | None]:
        found: list[SlideScore | None] = []
        for at in range(0, len(states), CHUNK):
            found += self._model.aggregator.scores(states[at : at + CHUNK])
        return found


def _all_but_each(aggregator: Any, states: list[Any]) -> list[Any]:
    """Return for each state the fold of all the others: one pass forth, one back."""
    after = [aggregator.initial_state()]
    for state in reversed(states):
        after.append(aggregator.merge(state, after[-1]))
    after.reverse()
    before, rest = aggregator.initial_state(), []
    for i, state in enumerate(states):
        rest.append(aggregator.merge(before, after[i + 1]))
        before = aggregator.merge(before, state)
    return rest


def _outputs(score: SlideScore) -> tuple[float, ...]:
    """Return the head's outputs; a pooling without a classifier has no logits."""
    return score.logits or score.pooled
