"""A survey around another one: it settles where fields lie, the inner one counts their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_mil.imaging.registration import KeyFrame, PoseEdge
from edge_mil.session.instances.base import InstanceMap, InstancePlan, Removal
from edge_mil.session.instances.grid_instances import GridInstances
from edge_mil.store import InstanceRow, KeyRow, PartRow
from edge_mil.types import Frame, InstanceOrder, Region


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """The token of a look: the inner survey's look, and the place that was settled."""

    inner: InstancePlan
    place: object


class WrappedMap(InstanceMap):
    """Hands on to a grid survey what has nothing to do with finding the place."""

    def __init__(self, inner: GridInstances) -> None:
        self._inner = inner

    def check(self, frame: Frame) -> None:
        """Check size and position."""
        self._inner.check(frame)

    def remove(self, sequence: int) -> Removal:
        """Forget a field's cells; its picture stays, and goes on placing others."""
        return self._inner.remove(sequence)

    def restore(self, instances: Sequence[InstanceRow], parts: Sequence[PartRow]) -> None:
        """Hold again what is stored."""
        self._inner.restore(instances, parts)

    def order(self, places: Sequence[str]) -> InstanceOrder:
        """Return the canonical order of cells."""
        return self._inner.order(places)

    def coverage(self) -> float:
        """Return held over known tissue cells."""
        return self._inner.coverage()

    def shares(self) -> Mapping[str, float]:
        """Return the share seen of each cell."""
        return self._inner.shares()

    def focus(self) -> Mapping[str, float]:
        """Return the sharpness of each held cell's worst part."""
        return self._inner.focus()

    def extent(self, place: str) -> Region | None:
        """Return where a cell lies."""
        return self._inner.extent(place)


def to_row(key: KeyFrame) -> KeyRow:
    """Return a key field as the store keeps it."""
    links = tuple((link.start, link.dx, link.dy, link.weight) for link in key.edges)
    size = (key.width_px, key.height_px)
    return KeyRow(key.sequence, key.x, key.y, size, key.factor, key.jpeg, links)


def from_row(row: KeyRow) -> KeyFrame:
    """Return what `to_row` wrote."""
    links = tuple(PoseEdge(start, row.sequence, dx, dy, w) for start, dx, dy, w in row.links)
    return KeyFrame(row.sequence, row.x, row.y, *row.size, row.factor, row.picture, links)
