"""A grid map that drops what a frame's name says, to test `InstancePlan.dropped` by itself.

Which instances go is the business of the real surveys; that they go in one durable step is the
session's.
"""

from __future__ import annotations

import dataclasses
import json

from painted_field import field

from edge_mil.pipeline import Model
from edge_mil.session.instances.base import InstancePlan
from edge_mil.session.instances.grid_instances import GridInstances
from edge_mil.session.settings import SessionSettings
from edge_mil.types import Frame, UInt8Array


class LosingInstances(GridInstances):
    """Counts cells, and drops those that a frame names."""

    @classmethod
    def open(
        cls, model: Model, settings: SessionSettings, frame_size: tuple[int, int] | None
    ) -> LosingInstances:
        """Stand in for `open_instance_map`."""
        assert model.input is not None
        return cls(model.input, settings, frame_size)

    @staticmethod
    def frame(
        slide: UInt8Array, x: int, y: int, drops: tuple[str, ...] = (), owner: int = 0
    ) -> Frame:
        """Return a field that drops places of an earlier field."""
        name = json.dumps([[place, owner] for place in drops])
        return dataclasses.replace(field(slide, x, y), name=name)

    def look(self, sequence: int, frame: Frame) -> InstancePlan:
        """Judge a field as a grid survey does."""
        look = super().look(sequence, frame)
        dropped = tuple((place, owner) for place, owner in json.loads(frame.name or "[]"))
        return dataclasses.replace(look, dropped=dropped)
