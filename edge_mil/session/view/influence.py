"""The influence of each field and each cell on the score, computed when it is asked for.

Influence is the logit of a class with the field (or cell) in the bag minus the logit without it.
Both bags are folded; nothing is subtracted from a state. So it is exact for every mergeable head.
Banked and whole-bag heads have none: each number would be a run over the whole bag.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_mil.errors import SessionStateError, UsageError
from edge_mil.pipeline import Model
from edge_mil.session.answers import read_answer
from edge_mil.session.bag import Bag
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.stored_fields import FieldHeaders
from edge_mil.session.view.cell_analysis import CellAnalysis, held_rows, stacked
from edge_mil.session.view.layers import to_grid
from edge_mil.session.view.leave_one_out import (
    AttentionParts,
    all_but_each,
    fold,
    has_attention_parts,
    outputs_of,
    outputs_of_states,
)
from edge_mil.session.view.records import FieldRecord
from edge_mil.store import FieldRow, InstanceRow, SessionReader
from edge_mil.types import Float64Array, InfluenceMap, InstanceBatch


class InfluenceAnalysis:
    """Analyses one bag of a session; keeps what it has computed, so one serves many questions."""

    def __init__(
        self, model: Model, store: SessionReader, instances: InstanceMap[Any], mpp: float, bag: Bag
    ) -> None:
        """Take the parts; nothing is read or computed yet.

        Args:
            model: Its head scores.
            store: The session's records, durable up to the bag.
            instances: Knows where instances lie, and their order.
            mpp: Pixel size of the camera, µm/px.
            bag: The bag that is analysed.
        """
        self._model, self._store, self._instances = model, store, instances
        self._mpp, self.bag = mpp, bag
        self._mergeable = model.aggregator.incremental == "mergeable"
        self._influence_of_cells = functools.cache(self._compute_influence_of_cells)

    @functools.cached_property
    def _fields(self) -> tuple[list[int], list[Any]]:
        """The fields in the bag, by number, and their states."""
        return list(self.bag.states), list(self.bag.states.values())

    @functools.cached_property
    def _without_each(self) -> list[Any]:
        """The state of the bag without each field; for heads that have no faster way."""
        return all_but_each(self._model.aggregator, self._fields[1])

    @functools.cached_property
    def _with_all(self) -> tuple[float, ...] | None:
        """The outputs for the whole bag; None while there is no score."""
        score = self._model.aggregator.scores([self.bag.total])[0]
        return None if score is None else outputs_of(score)

    def fields(
        self, after: int = 0, count: int | None = None, *, attention: bool = True
    ) -> list[FieldRecord]:
        """Return fields in the order of sequence numbers.

        Args:
            after: Only those above this number.
            count: How many at most; None for all.
            attention: False leaves the shares of attention 0: they need every cell's logits.

        Raises:
            StoreError: The records cannot be read.
        """
        with self._store.snapshot() as records:
            return self._records(records, records.fields(after, count), attention)

    def top_fields(self, count: int, class_name: str = "") -> list[FieldRecord]:
        """Return the fields of largest influence on a class, either sign, largest first.

        Raises:
            StoreError: The records cannot be read.
        """
        influence = self.influences(class_name)
        largest = sorted(influence, key=lambda s: (-abs(influence[s]), s))[:count]
        with self._store.snapshot() as records:
            rows = [row for s in largest if (row := records.field(s)) is not None]
            found = self._records(records, rows, attention=True)
        return [dataclasses.replace(r, influence=influence[r.sequence]) for r in found]

    def influences(self, class_name: str = "") -> dict[int, float]:
        """Return sequence -> influence on the logit.

        Empty where one field is the whole bag, and for heads that are not mergeable.
        """
        index = self._class(class_name)
        if self._with_all is None or not self._mergeable:
            return {}
        values = self._with_all[index] - self._outputs_without_each[:, index]
        pairs = zip(self._fields[0], values.tolist(), strict=True)
        return {sequence: value for sequence, value in pairs if not np.isnan(value)}

    def influence_map(self, class_name: str, revision: int) -> InfluenceMap:
        """Return each cell's influence on the logit of a class.

        Raises:
            SessionStateError: The fields have no positions, lie too far apart, or the head is not
                mergeable.
            UsageError: There is no such class.
            StoreError: The records cannot be read.
        """
        index = self._class(class_name)
        spec = self._model.bundle.manifest.aggregator
        if spec.incremental != "mergeable":
            raise SessionStateError(
                f"There is no map of influence for {spec.architecture}: it is a "
                f"{spec.incremental} head, and each cell would need a run over the whole bag."
            )
        grid = to_grid(self._influence_of_cells(index), self._instances.extent)
        return InfluenceMap(
            self._model.bundle.manifest.task.classes[index],
            grid.origin_x_um,
            grid.origin_y_um,
            grid.um_per_column,
            grid.um_per_row,
            grid.values,
            revision,
        )

    # Fields

    @functools.cached_property
    def _outputs_without_each(self) -> Float64Array:
        """The outputs for the bag without each field, (n, c); NaN where there is no score."""
        aggregator, (_, states) = self._model.aggregator, self._fields
        width = len(self._with_all or ())
        if not has_attention_parts(aggregator) or len(states) < 2:
            return outputs_of_states(aggregator, self._without_each, width)
        parts = AttentionParts.of_states(states, self.bag.total.peak)
        counts = [self.bag.total.count - state.count for state in states]
        found = parts.without_each().outputs(aggregator, counts, width)
        for i in np.flatnonzero(np.isnan(found).any(axis=1)):
            # Without it the weights of all others underflow: they are folded by themselves.
            rest = fold(aggregator, (s for j, s in enumerate(states) if j != i))
            found[i] = outputs_of_states(aggregator, [rest], width)[0]
        return found

    def _records(
        self, records: SessionReader, rows: Sequence[FieldRow], attention: bool
    ) -> list[FieldRecord]:
        headers, found = FieldHeaders(records, self._mpp), []
        channels = self._model.bundle.manifest.aggregator.channels
        wanted = attention and channels > 0 and self._mergeable
        for row in rows:
            header = headers.read(row.sequence, row.header)
            location_id = header.pop("place")  # the stored files keep this name
            held = held_rows(records, row.sequence, arrays=wanted) if row.sequence in self else []
            found.append(
                FieldRecord(
                    result=read_answer(row.answer),
                    cells=len(held),
                    removed=row.removed,
                    location_id=location_id,
                    attention_share=self._attention_share(held) if wanted else 0.0,
                    **header,
                )
            )
        return found

    def __contains__(self, sequence: int) -> bool:
        return sequence in self.bag.states if self._mergeable else True

    def _attention_share(self, held: Sequence[InstanceRow]) -> float:
        if not held:
            return 0.0
        logits = stacked([row.attention_logits for row in held])
        # Attention needs the logits alone.
        alone = InstanceBatch(np.empty((len(held), 0), dtype=np.float32), logits)
        share = self._model.aggregator.attention(self.bag.total, alone)
        return 0.0 if share is None else float(share.sum(axis=0).mean())

    @functools.cached_property
    def _outputs_without_each_cell(self) -> list[tuple[list[str], Float64Array]]:
        """Instance keys, and the outputs for the bag without each, in chunks."""
        cells = CellAnalysis(self._model, self._instances, self.bag, len(self._with_all or ()))
        with self._store.snapshot() as records:
            if has_attention_parts(self._model.aggregator):
                return list(cells.by_running_sums(records))
            return list(cells.by_states(records, self._without_each))

    def _compute_influence_of_cells(self, index: int) -> dict[str, float]:
        """Return instance key -> influence, of every instance in the bag."""
        whole = self._with_all
        influence: dict[str, float] = {}
        for keys, without in self._outputs_without_each_cell:
            # Without the only cell of the bag there is no score to compare with.
            values = np.zeros(len(keys)) if whole is None else whole[index] - without[:, index]
            influence.update(zip(keys, np.nan_to_num(values).tolist(), strict=True))
        return influence

    def _class(self, name: str) -> int:
        """Return the index of a class; "" is the last one, the positive one of two."""
        classes = self._model.bundle.manifest.task.classes
        if not name:
            return len(classes) - 1
        if name not in classes:
            raise UsageError(f"There is no class {name!r}; name one of {', '.join(classes)}.")
        return classes.index(name)
