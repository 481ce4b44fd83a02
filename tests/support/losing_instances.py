"""A grid map that drops the instances that a frame's name lists.

It shows that instances which a plan drops leave the bag in one durable step, whatever the reason.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from painted_field import field

from edge_mil.imaging.quality.cell_focus import BlurTest
from edge_mil.pipeline import Model
from edge_mil.session.instances.base import InstanceMap, Localizer, Placement
from edge_mil.session.instances.grid_instances import GridInstances, GridPlan
from edge_mil.session.instances.stage_localizer import StageLocalizer
from edge_mil.session.settings import SessionSettings
from edge_mil.types import Frame, UInt8Array


class LosingInstances(GridInstances):
    """Counts cells, and drops those that a frame names."""

    @classmethod
    def open(
        cls, model: Model, settings: SessionSettings, frame_size: tuple[int, int] | None
    ) -> tuple[Localizer[Any], InstanceMap[Any]]:
        """Stand in for `open_instances`."""
        assert model.input is not None
        return StageLocalizer(settings), cls(model.input, settings, frame_size)

    @staticmethod
    def frame(
        slide: UInt8Array, x: int, y: int, drops: tuple[str, ...] = (), owner: int = 0
    ) -> Frame:
        """Return a field that drops instances of an earlier field."""
        name = json.dumps([[key, owner] for key in drops])
        return dataclasses.replace(field(slide, x, y), name=name)

    def plan(
        self, sequence: int, frame: Frame, placement: Placement, blurred: BlurTest | None = None
    ) -> GridPlan:
        """Plan a field as a grid does, and drop what its name lists."""
        plan = super().plan(sequence, frame, placement, blurred)
        dropped = tuple((key, owner) for key, owner in json.loads(frame.name or "[]"))
        changes = dataclasses.replace(plan.changes, dropped=dropped)
        return dataclasses.replace(plan, changes=changes)
