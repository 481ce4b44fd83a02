"""Whole fields as places: slots of the stage, or the places of independent fields."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.bundle import InputSpec
from edge_mil.errors import PositionError
from edge_mil.imaging import Slot, SlotMap, SlotUpdate, ViewRank, check_field_mpp
from edge_mil.pipeline.instance_order import grid_order, named_order
from edge_mil.session.instances.base import InstanceMap, InstancePlan, Removal
from edge_mil.session.instances.grid_instances import check_size
from edge_mil.session.settings import SessionSettings
from edge_mil.store import InstanceKind, InstanceRow, PartRow
from edge_mil.types import Frame, InstanceOrder, Region, Verdict


@dataclass(frozen=True, slots=True)
class _Seen:
    view: SlotUpdate
    size: tuple[int, int]


class FieldInstances(InstanceMap):
    """Counts fields; `edge_mil.imaging.SlotMap` knows which is the best of each slot.

    Every usable field is extracted and kept as a candidate, so that removing the best brings back
    the next best exactly.
    """

    def __init__(
        self, spec: InputSpec, settings: SessionSettings, frame_size: tuple[int, int] | None
    ) -> None:
        check_field_mpp(settings.mpp, spec.mpp)
        tissue = spec.tissue
        self._book = SlotMap(
            spec.tile_height_px,
            spec.tile_width_px,
            background=tissue.background,
            min_difference=tissue.min_difference,
            min_share=tissue.min_share,
            mpp=settings.mpp,
            outline=settings.tissue,
        )
        if frame_size is not None:
            self._book.set_field_size(*frame_size)
        self._mpp, self._independent, self._size = settings.mpp, settings.independent, frame_size
        self._slot: dict[int, str] = {}

    def check(self, frame: Frame) -> None:
        """Check size, position and place."""
        if self._independent and not frame.location_id:
            raise PositionError(
                "The session is for independent fields, and the field has no place; give each "
                "field a place, a name that is the same when the same place is seen again."
            )
        if not self._independent:
            if frame.location_id:
                raise PositionError(
                    f"The field has the place {frame.location_id!r} and this session's fields have "
                    "stage positions; open a session for independent fields to send places."
                )
            check_size(frame, self._size)
            if frame.x_um is None:
                raise PositionError(
                    "The field has no stage position; send its position, or open the session for "
                    "independent fields and give each a place (edge-mil stream --independent)."
                )

    def look(self, sequence: int, frame: Frame) -> InstancePlan:
        """Judge a field; see `InstanceMap.look`."""
        self.check(frame)
        view = self._book.plan(frame, sequence)
        place, best = _key(view.slot), view.verdict is Verdict.ACCEPTED
        kind = InstanceKind.HELD if best else InstanceKind.CANDIDATE
        note = json.dumps(dataclasses.astuple(view.rank))
        row = InstanceRow(place, sequence, kind, (sequence,), note)
        return InstancePlan(
            verdict=view.verdict,
            measures=view.measures,
            tiles=view.tile[None] if view.candidate else np.empty((0, 1, 1, 3), np.uint8),
            rows=(row,) if view.candidate else (),
            displaced=() if view.replaces is None else ((place, view.replaces),),
            added=int(best and view.replaces is None),
            improved=int(view.replaces is not None),
            held=int(view.verdict is Verdict.DUPLICATE),
            token=_Seen(view, (frame.height_px, frame.width_px)),
        )

    def apply(self, look: InstancePlan) -> None:
        """Hold what the field brought."""
        seen = look.token
        assert isinstance(seen, _Seen)
        self._book.commit(seen.view)
        if self._size is None and not self._independent:
            self._size = seen.size
            self._book.set_field_size(*seen.size)
        for row in look.rows:
            self._slot[row.sequence] = row.instance_key

    def remove(self, sequence: int) -> Removal:
        """Forget a field; the next best of its slot comes back."""
        place = self._slot.pop(sequence, None)
        if place is None:
            return Removal()
        slot, next_best = self._book.remove(sequence)
        # CANDIDATE for the removed one: its record stays, and its field is flagged.
        kinds = {(place, sequence): InstanceKind.CANDIDATE}
        if slot is None or next_best is None:
            return Removal(kinds=kinds)
        kinds[(place, next_best)] = InstanceKind.HELD
        return Removal(kinds=kinds, touched=(next_best,))

    def restore(self, instances: Sequence[InstanceRow], parts: Sequence[PartRow]) -> None:
        """Hold again what is stored."""
        for row in instances:
            dullness, distance_um, digest = json.loads(row.note)
            rank = ViewRank(int(dullness), float(distance_um), str(digest))
            self._book.restore(row.sequence, _slot(row.instance_key), rank)
            self._slot[row.sequence] = row.instance_key

    def order(self, places: Sequence[str]) -> InstanceOrder:
        """Return the canonical order of slots, or of the names of independent fields."""
        slots = [_slot(place) for place in places]
        numbered = [slot for slot in slots if not isinstance(slot, str)]
        if len(numbered) == len(slots):
            return grid_order(numbered)
        return named_order([str(slot) for slot in slots])

    def coverage(self) -> float:
        """Return held over known slots."""
        return self._book.coverage()

    def shares(self) -> Mapping[str, float]:
        """Return 1 for a slot that is held, 0 for one of the outline that is not."""
        expected = dict.fromkeys((_key(slot) for slot in self._book.outline_slots()), 0.0)
        return {**expected, **dict.fromkeys(map(_key, self._book.focus()), 1.0)}

    def focus(self) -> Mapping[str, float]:
        """Return the sharpness class of each slot's field."""
        return {_key(slot): sharp for slot, sharp in self._book.focus().items()}

    def extent(self, place: str) -> Region | None:
        """Return where a slot lies; None for an independent field."""
        slot = _slot(place)
        if isinstance(slot, str) or self._size is None:
            return None
        height, width = self._size[0] * self._mpp, self._size[1] * self._mpp
        return Region(slot[0] * width, slot[1] * height, width, height)


def _key(slot: Slot) -> str:
    return f"place:{slot}" if isinstance(slot, str) else f"slot:{slot[0]}:{slot[1]}"


def _slot(place: str) -> Slot:
    kind, _, rest = place.partition(":")
    if kind == "place":
        return rest
    column, row = rest.split(":")
    return int(column), int(row)
