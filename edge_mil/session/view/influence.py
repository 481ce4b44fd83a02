"""Why the score is what it is: what each field and each cell does to it, computed on demand.

Influence is the logit of a class with the field (or cell) in the bag minus the logit without it,
both folded, never subtracted, so it is exact for every mergeable pooling. Banked and whole-bag
heads have none: each number would be a run over the whole bag.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_mil.errors import SessionStateError, UsageError
from edge_mil.pipeline import Model
from edge_mil.session.answers import read_answer
from edge_mil.session.stored_fields import Headers
from edge_mil.session.view.records import FieldRecord
from edge_mil.store import InstanceKind, InstanceRow, SessionReader
from edge_mil.types import (
    Float32Array,
    InfluenceMap,
    InstanceBatch,
    InstanceOrder,
    Region,
    SlideScore,
)

CHUNK = 4096
"""States that are scored in one run of the classifier: bounds the memory."""


class InfluenceAnalysis:
    """Reads one session's records; sees them as they were when it was made."""

    def __init__(
        self,
        model: Model,
        store: SessionReader,
        extent: Callable[[str], Region | None],
        order: Callable[[Sequence[str]], InstanceOrder],
        mpp: float,
    ) -> None:
        self._model, self._store, self._extent, self._order = model, store, extent, order
        self._mpp = mpp
        aggregator = model.aggregator
        self._states = [(s, aggregator.from_bytes(data)) for s, data in store.states()]
        self._mergeable = aggregator.incremental == "mergeable"
        total = aggregator.initial_state()
        for _, state in self._states:
            total = aggregator.merge(total, state)
        self._total = total

    @functools.cached_property
    def _rest(self) -> list[Any]:
        """The bag without each field; a list of fields does without it."""
        states = [state for _, state in self._states]
        return _all_but_each(self._model.aggregator, states) if self._mergeable else []

    def fields(self) -> list[FieldRecord]:
        """Return every field in the order of sequence numbers."""
        shares, cells = self._attention_shares()
        headers, records = Headers(self._store, self._mpp), []
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
        if not self._rest:
            return {}
        with_all = self._model.aggregator.scores([self._total])[0]
        without = self._scores(self._rest)
        return {
            sequence: _outputs(with_all)[index] - _outputs(score)[index]
            for (sequence, _), score in zip(self._states, without, strict=True)
            if with_all is not None and score is not None
        }

    def heat_map(self, class_name: str, revision: int) -> InfluenceMap:
        """Return each cell's influence on the logit of a class.

        Raises:
            SessionStateError: The fields have no positions, or the head is not mergeable.
            UsageError: There is no such class.
        """
        index = self._class(class_name)
        spec = self._model.bundle.manifest.aggregator
        if spec.incremental != "mergeable":
            raise SessionStateError(
                f"There is no map of influence for {spec.architecture}: it is a "
                f"{spec.incremental} head, and each cell would need a run over the whole bag."
            )
        places: list[Region] = []
        values: list[float] = []
        waiting: list[tuple[Region, Any]] = []
        with_all = self._model.aggregator.scores([self._total])[0]

        def settle() -> None:
            for (region, _), score in zip(
                waiting, self._scores([rest for _, rest in waiting]), strict=True
            ):
                places.append(region)
                # The only cell of the bag: without it there is no score to compare with.
                if with_all is None or score is None:
                    values.append(0.0)
                else:
                    values.append(_outputs(with_all)[index] - _outputs(score)[index])
            waiting.clear()

        for (sequence, _), rest in zip(self._states, self._rest, strict=True):
            for row, without in self._cells_without(sequence, rest):
                region = self._extent(row.instance_key)
                if region is None:
                    raise SessionStateError(
                        "The fields of this session have no positions, so there is no map of "
                        "them; ask for its top fields instead."
                    )
                waiting.append((region, without))
            if len(waiting) >= CHUNK:
                settle()
        settle()
        return _paint(self._model.bundle.manifest.task.classes[index], places, values, revision)

    def _cells_without(self, sequence: int, rest: Any) -> list[tuple[InstanceRow, Any]]:
        """Return each held row of a field, and the state of the bag without it."""
        rows = [r for r in self._store.instances(sequence) if r.kind is InstanceKind.HELD]
        aggregator = self._model.aggregator
        features = np.stack([np.frombuffer(r.features or b"", dtype="<f4") for r in rows])
        batch = self._model.attend(features, self._order([r.instance_key for r in rows]))
        empty = aggregator.initial_state()
        single = [aggregator.update(empty, batch.take(np.array([i]))) for i in range(len(rows))]
        others = _all_but_each(aggregator, single)
        return [(r, aggregator.merge(rest, o)) for r, o in zip(rows, others, strict=True)]

    def _attention_shares(self) -> tuple[dict[int, float], dict[int, int]]:
        shares: dict[int, float] = defaultdict(float)
        cells: dict[int, int] = defaultdict(int)
        channels = self._model.bundle.manifest.aggregator.channels
        for sequence, _ in self._states:
            rows = [r for r in self._store.instances(sequence) if r.kind is InstanceKind.HELD]
            cells[sequence] = len(rows)
            if channels and rows and self._mergeable:
                logits: Float32Array = np.stack(
                    [np.frombuffer(r.attention_logits or b"", dtype="<f4") for r in rows]
                )
                # Attention poolings need the logits alone, so the features stay on the disk.
                alone = InstanceBatch(np.empty((len(rows), 0), dtype=np.float32), logits)
                share = self._model.aggregator.attention(self._total, alone)
                shares[sequence] = 0.0 if share is None else float(share.sum(axis=0).mean())
        return shares, cells

    def _class(self, name: str) -> int:
        """Return the index of a class; "" is the last one, which two-class models call positive."""
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


def _paint(
    class_name: str, places: list[Region], values: list[float], revision: int
) -> InfluenceMap:
    if not places:
        empty: Float32Array = np.empty((0, 0), dtype=np.float32)
        return InfluenceMap(class_name, 0.0, 0.0, 0.0, 0.0, empty, revision)
    width, height = places[0].width_um, places[0].height_um
    left, top = min(p.x_um for p in places), min(p.y_um for p in places)
    columns = [round((p.x_um - left) / width) for p in places]
    rows = [round((p.y_um - top) / height) for p in places]
    grid = np.full((max(rows) + 1, max(columns) + 1), np.nan, dtype=np.float32)
    grid[rows, columns] = values
    return InfluenceMap(class_name, left, top, width, height, grid, revision)
