"""What a bundle counts as places: the seam between cells of a grid and whole fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_mil.store import (
    InstanceKind,
    InstanceRow,
    KeyFrameRow,
    LocatedRow,
    PartRow,
    SessionReader,
)
from edge_mil.types import Frame, InstanceOrder, Measure, Region, UInt8Array, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class InstancePlan:
    """What one field shows, before anything is changed.

    Attributes:
        verdict: What becomes of the field.
        measures: The numbers behind it.
        tiles: What to extract, RGB uint8, shape (n, h, w, 3).
        rows: One row for each tile, without its arrays yet.
        glass: Rows of complete cells without tissue.
        parts: Pixels to keep for cells that are not complete.
        finished: Places that are complete now.
        displaced: Earlier fields whose instance gives way to this field's, and stays a candidate.
        dropped: (place, sequence of its owner): instances that leave the bag for good in the same
            durable step, because this field replaces the cell or shows that it was counted twice.
            Their owners are folded again from what they still hold.
        added: Places that are held for the first time.
        improved: Places held before, whose instance this field replaces.
        held: Places that it shows and that stay as they are.
        at_um: Stage place (x, y) of the field's centre that it was counted at, where that is not
            the frame's own.
        keys: Key fields to keep.
        key_positions: Key field -> its new position.
        located: Where the field was found.
        moved: (place, sequence of its owner) -> new place: a loop was closed.
        parts_instead: All pixels of unfinished cells after that; None: no change.
        meta: Names and values that the survey keeps.
        token: The survey's own, for `apply`; None where there is nothing to apply.
    """

    verdict: Verdict
    measures: tuple[Measure, ...]
    tiles: UInt8Array
    rows: tuple[InstanceRow, ...] = ()
    glass: tuple[InstanceRow, ...] = ()
    parts: tuple[PartRow, ...] = ()
    finished: tuple[str, ...] = ()
    displaced: tuple[tuple[str, int], ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    added: int = 0
    improved: int = 0
    held: int = 0
    at_um: tuple[float, float] | None = None
    keys: tuple[KeyFrameRow, ...] = ()
    key_positions: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    located: LocatedRow | None = None
    moved: Mapping[tuple[str, int], str] = field(default_factory=dict)
    parts_instead: tuple[PartRow, ...] | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    token: object = None


def rejected(verdict: Verdict, measures: tuple[Measure, ...]) -> InstancePlan:
    """Return the look of a field that gives nothing: no cells, no parts."""
    return InstancePlan(verdict, measures, np.empty((0, 1, 1, 3), np.uint8))


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes, and what comes back, when a field is removed.

    Attributes:
        dropped: Places whose instance goes, whoever showed it.
        kinds: (place, sequence) -> new kind: the next best candidate of a slot comes back.
        touched: Fields whose state must be folded again from what they still hold.
    """

    dropped: tuple[str, ...] = ()
    kinds: Mapping[tuple[str, int], InstanceKind] = field(default_factory=dict)
    touched: tuple[int, ...] = ()


class InstanceMap(ABC):
    """Knows which places of the slide are held; judges fields against that."""

    def check(self, frame: Frame) -> None:  # noqa: B027 - a survey may take any frame
        """Check that a field is no malformed input, before any gate.

        Raises:
            FrameError: Its size is not the session's.
            PositionError: It has no position, or no place, where one is needed.
        """

    def recall(self, records: SessionReader) -> None:  # noqa: B027 - most keep nothing of their own
        """Take what the survey itself stored, before `restore`, and where its records are."""

    @abstractmethod
    def look(self, sequence: int, frame: Frame) -> InstancePlan:
        """Judge a field; changes nothing.

        Raises:
            FrameError: Its size is not the session's.
            PositionError: It has no position, or no place, where one is needed.
        """

    @abstractmethod
    def apply(self, look: InstancePlan) -> None:
        """Hold what the field brought."""

    @abstractmethod
    def remove(self, sequence: int) -> Removal:
        """Forget a field."""

    @abstractmethod
    def restore(self, instances: Sequence[InstanceRow], parts: Sequence[PartRow]) -> None:
        """Hold again what is stored, after a restart."""

    @abstractmethod
    def order(self, places: Sequence[str]) -> InstanceOrder:
        """Return the canonical order of places."""

    @abstractmethod
    def coverage(self) -> float:
        """Return the share held of the tissue known so far, 0 to 1."""

    def shares(self) -> Mapping[str, float]:
        """Return the share seen of each place that was met or is expected; from any thread."""
        return {}

    def focus(self) -> Mapping[str, float]:
        """Return how sharply each held place was seen, where judged; from any thread."""
        return {}

    @abstractmethod
    def extent(self, place: str) -> Region | None:
        """Return where a place lies, stage um; None where it has no position."""
