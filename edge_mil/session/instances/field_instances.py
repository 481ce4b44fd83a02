"""Whole fields as instances: one for each slot of the stage, or for each location by its name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.bundle import InputSpec
from edge_mil.imaging import Slot, SlotMap, SlotUpdate, ViewRank, check_field_mpp
from edge_mil.imaging.quality.cell_focus import BlurTest
from edge_mil.pipeline.instance_order import grid_order, named_order
from edge_mil.session.instances.base import (
    InstanceChanges,
    InstanceMap,
    InstancePlan,
    Placement,
    Removal,
)
from edge_mil.session.instances.grid_instances import check_size
from edge_mil.session.settings import SessionSettings
from edge_mil.store import InstanceKind, InstanceRow, SessionReader
from edge_mil.types import Frame, InstanceOrder, Region, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class FieldPlan(InstancePlan):
    """The plan of a field that is an instance itself.

    Attributes:
        update: What `SlotMap` takes over.
        size: (height, width) of the field, px.
    """

    update: SlotUpdate | None = None
    size: tuple[int, int] | None = None


class FieldInstances(InstanceMap[FieldPlan]):
    """Counts each slot once; `edge_mil.imaging.SlotMap` knows the best field of each.

    Every usable field is extracted and kept as a candidate, so that removing the best brings the
    next best back exactly.
    """

    def __init__(
        self, spec: InputSpec, settings: SessionSettings, frame_size: tuple[int, int] | None
    ) -> None:
        """Start without any field.

        Args:
            spec: Tile size and MPP of the model, and its tissue test.
            settings: The session's.
            frame_size: (height, width) of the session's fields, px; None before the first.

        Raises:
            PixelSizeError: The camera's pixel size is not that of the model.
        """
        check_field_mpp(settings.mpp, spec.mpp)
        tissue = spec.tissue
        self._slots = SlotMap(
            spec.tile_height_px,
            spec.tile_width_px,
            background=tissue.background,
            min_difference=tissue.min_difference,
            min_share=tissue.min_share,
            mpp=settings.mpp,
            outline=settings.tissue,
        )
        if frame_size is not None:
            self._slots.set_field_size(*frame_size)
        self._mpp, self._independent, self._size = settings.mpp, settings.independent, frame_size
        self._key_of_field: dict[int, str] = {}

    def check(self, frame: Frame) -> None:
        """See `InstanceMap.check`; independent fields may have any size."""
        if not self._independent:
            check_size(frame, self._size)

    def restore(self, records: SessionReader, removed: Collection[int]) -> None:
        for row in records.instances(arrays=False):
            if row.sequence not in removed:
                dullness, distance_um, digest = json.loads(row.note)
                rank = ViewRank(int(dullness), float(distance_um), str(digest))
                self._slots.restore(row.sequence, _slot(row.instance_key), rank)
                self._key_of_field[row.sequence] = row.instance_key

    def plan(
        self, sequence: int, frame: Frame, placement: Placement, blurred: BlurTest | None = None
    ) -> FieldPlan:
        """See `InstanceMap.plan`; a whole field is judged as a whole, so `blurred` is not used."""
        update = self._slots.plan(frame, sequence)
        key, best = _key(update.slot), update.verdict is Verdict.ACCEPTED
        kind = InstanceKind.HELD if best else InstanceKind.CANDIDATE
        note = json.dumps(dataclasses.astuple(update.rank))
        row = InstanceRow(key, sequence, kind, (sequence,), note)
        return FieldPlan(
            verdict=update.verdict,
            measures=update.measures + placement.measures,
            tiles=update.tile[None] if update.candidate else np.empty((0, 1, 1, 3), np.uint8),
            changes=InstanceChanges(
                rows=(row,) if update.candidate else (),
                displaced=() if update.replaces is None else ((key, update.replaces),),
            ),
            added=int(best and update.replaces is None),
            improved=int(update.replaces is not None),
            held=int(update.verdict is Verdict.DUPLICATE),
            update=update,
            size=(frame.height_px, frame.width_px),
        )

    def commit(self, plan: FieldPlan) -> None:
        assert plan.update is not None
        self._slots.commit(plan.update)
        if self._size is None and plan.size is not None and not self._independent:
            self._size = plan.size
            self._slots.set_field_size(*plan.size)
        for row in plan.changes.rows:
            self._key_of_field[row.sequence] = row.instance_key

    def remove(self, sequence: int) -> Removal:
        """Remove a field; the next best of its slot is held again."""
        key = self._key_of_field.pop(sequence, None)
        if key is None:
            return Removal()
        slot, next_best = self._slots.remove(sequence)
        # The removed one becomes a candidate: its record stays, and its field is flagged.
        kinds = {(key, sequence): InstanceKind.CANDIDATE}
        if slot is None or next_best is None:
            return Removal(kinds=kinds)
        kinds[(key, next_best)] = InstanceKind.HELD
        return Removal(kinds=kinds, touched=(next_best,))

    def order(self, keys: Sequence[str]) -> InstanceOrder:
        """Return the canonical order of slots, or of the names of independent fields."""
        slots = [_slot(key) for key in keys]
        numbered = [slot for slot in slots if not isinstance(slot, str)]
        if len(numbered) == len(slots):
            return grid_order(numbered)
        return named_order([str(slot) for slot in slots])

    def coverage(self) -> float:
        """Return the number of held slots over that of the known ones."""
        return self._slots.coverage()

    def shares(self) -> Mapping[str, float]:
        """Return 1 for a slot that is held, 0 for one of the outline that is not."""
        expected = dict.fromkeys((_key(slot) for slot in self._slots.outline_slots()), 0.0)
        return {**expected, **dict.fromkeys(map(_key, self._slots.focus()), 1.0)}

    def focus(self) -> Mapping[str, float]:
        """Return the sharpness class of each slot's field."""
        return {_key(slot): sharp for slot, sharp in self._slots.focus().items()}

    def extent(self, key: str) -> Region | None:
        """Return where a slot lies, stage µm; None for an independent field."""
        slot = _slot(key)
        if isinstance(slot, str) or self._size is None:
            return None
        height, width = self._size[0] * self._mpp, self._size[1] * self._mpp
        return Region(slot[0] * width, slot[1] * height, width, height)


# The stored keys: "slot:COLUMN:ROW" on a stage, "place:NAME" for independent fields.


def _key(slot: Slot) -> str:
    return f"place:{slot}" if isinstance(slot, str) else f"slot:{slot[0]}:{slot[1]}"


def _slot(key: str) -> Slot:
    kind, _, rest = key.partition(":")
    if kind == "place":
        return rest
    column, row = rest.split(":")
    return int(column), int(row)
