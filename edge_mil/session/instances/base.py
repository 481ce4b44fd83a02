"""The two seams of a session: where a frame lies, and what it changes among the instances.

A frame passes them in this order::

    placement = localizer.locate(sequence, frame)       # nothing changes
    plan = instances.plan(sequence, frame, placement)   # nothing changes
    ...                                                 # extraction may still refuse the frame
    localizer.commit(placement)
    instances.commit(plan)

`locate` and `plan` change nothing, so a frame that is refused later leaves no trace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from edge_mil.errors import SessionStateError
from edge_mil.session.geometry.stored import NO_STAGE
from edge_mil.store import (
    GeometryRow,
    InstanceKind,
    InstanceRow,
    KeyFrameRow,
    LocatedRow,
    PartRow,
    SessionReader,
)
from edge_mil.types import (
    Frame,
    InstanceOrder,
    Measure,
    Region,
    SessionCheck,
    UInt8Array,
    Verdict,
)

InstanceId = tuple[str, int]
"""(instance key, sequence of the field that owns it): names one stored instance."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a field lies from the position at which its pixels were cut, camera pixels.

    Attributes:
        before: Until now; its cells and pixels are stored with this shift already.
        after: From now on.
    """

    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where a frame lies on the slide.

    Attributes:
        x_um: Stage x of the field's centre, µm; None where there is no position.
        y_um: Stage y of the field's centre, µm; None where there is no position.
        verdict: BLANK or UNLOCATED where no position could be found; None where the frame may be
            counted.
        measures: The numbers that the position rests on.
        key_frames: Frames to keep for the registration of later ones.
        key_positions: Sequence of a key frame -> its new position, camera pixels.
        located: How the frame was found, as the store keeps it.
        moved: Sequence of a field -> its shift, where a closed loop moved earlier fields.
        meta: Names and values for the meta table of the session's file.
        explanation: Why it is UNLOCATED, where a check of the session refused it; else "".
    """

    x_um: float | None
    y_um: float | None
    verdict: Verdict | None = None
    measures: tuple[Measure, ...] = ()
    key_frames: tuple[KeyFrameRow, ...] = ()
    key_positions: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    located: LocatedRow | None = None
    moved: Mapping[int, Shift] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    explanation: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class InstanceChanges:
    """What one field changes in the stored instances.

    Attributes:
        rows: One row for each tile, still without its features.
        glass: Rows of complete cells without tissue.
        parts: Pixels to keep for cells that are not complete yet.
        finished: Keys of the cells that are complete now.
        displaced: Instances of earlier fields that this field's replace; they stay as candidates.
        dropped: Instances that leave the bag for good, because this field replaces them or shows
            that they were counted twice. Their owners are folded again from what they still hold.
        moved: Instance -> its new key, after a closed loop.
        replaced_parts: All pixels of unfinished cells after a closed loop; None: no change.
    """

    rows: tuple[InstanceRow, ...] = ()
    glass: tuple[InstanceRow, ...] = ()
    parts: tuple[PartRow, ...] = ()
    finished: tuple[str, ...] = ()
    displaced: tuple[InstanceId, ...] = ()
    dropped: tuple[InstanceId, ...] = ()
    moved: Mapping[InstanceId, str] = field(default_factory=dict)
    replaced_parts: tuple[PartRow, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class InstancePlan:
    """What one field shows, before anything is changed.

    Attributes:
        verdict: The verdict on the field.
        measures: The numbers behind it.
        tiles: What to extract, RGB uint8, shape (n, h, w, 3).
        changes: What is stored when the plan is committed.
        added: Instances that are held for the first time.
        improved: Instances that were held before and are replaced by this field's.
        held: Instances that the field shows and that stay as they are.
        rejected: Whether the field gives nothing; such a plan is never committed.
    """

    verdict: Verdict
    measures: tuple[Measure, ...]
    tiles: UInt8Array
    changes: InstanceChanges = field(default_factory=InstanceChanges)
    added: int = 0
    improved: int = 0
    held: int = 0
    rejected: bool = False


def rejected(verdict: Verdict, measures: tuple[Measure, ...]) -> InstancePlan:
    """Return the plan of a field that gives nothing: no instances, no pixels."""
    return InstancePlan(verdict, measures, np.empty((0, 1, 1, 3), np.uint8), rejected=True)


@dataclass(frozen=True, slots=True)
class Removal:
    """What changes when a field is removed.

    Attributes:
        dropped: Keys of the instances that leave the bag, whichever field owns them.
        kinds: Instance -> its new kind: the next best candidate of a slot is held again.
        touched: Fields whose state must be folded again from what they still hold.
    """

    dropped: tuple[str, ...] = ()
    kinds: Mapping[InstanceId, InstanceKind] = field(default_factory=dict)
    touched: tuple[int, ...] = ()


PlacementT = TypeVar("PlacementT", bound=Placement)
PlanT = TypeVar("PlanT", bound=InstancePlan)


class Localizer(ABC, Generic[PlacementT]):
    """Finds the stage position of each frame."""

    def check(self, frame: Frame) -> None:
        """Check that a frame brings the position that this session needs, before any gate.

        Raises:
            PositionError: It has a position, or a location, where there must be none, or lacks
                one.
        """

    def restore(self, records: SessionReader) -> None:
        """Take over what was stored, when a session begins or goes on."""

    @abstractmethod
    def locate(self, sequence: int, frame: Frame) -> Placement:
        """Find the position of a frame; changes nothing.

        Args:
            sequence: Number of the field.
            frame: After the corrections.

        Raises:
            PixelSizeError: The stage's affine and the pixel size differ by more than a quarter.
        """

    def without_tissue(self, placement: PlacementT) -> PlacementT:
        """Return the placement of a field in which no tissue was found."""
        return placement

    def commit(self, placement: PlacementT) -> None:
        """Learn from a placement that `locate` returned and whose field was not refused."""

    def note(self, sequence: int, placement: Placement, verdict: Verdict) -> GeometryRow | None:
        """Learn what a field says about stage and slide, also where it was refused.

        Returns:
            What to store of it; None where it says nothing.
        """
        return None

    def release(self, how: str) -> GeometryRow:
        """Let a held session go on; return what to store of it.

        Args:
            how: "same-slide" or "insist".

        Raises:
            SessionStateError: What holds it needs another answer, or nothing holds it.
        """
        raise SessionStateError(
            "No check holds this session, so there is nothing to release.", reason="HOLD_MISMATCH"
        )

    @property
    def geometry(self) -> SessionCheck:
        """Whether pixel size, axes and units are those that the images show."""
        return SessionCheck(sentence=NO_STAGE)

    @property
    def slide(self) -> SessionCheck:
        """Whether the slide is still the one of the beginning."""
        return SessionCheck(sentence=NO_STAGE)

    def is_suspect(self, sequence: int) -> bool:
        """Return whether a field was taken before a contradiction was found that concerns it."""
        return False


class InstanceMap(ABC, Generic[PlanT]):
    """Knows which instances of the slide are held, and plans what a field changes."""

    def check(self, frame: Frame) -> None:
        """Check the size of a frame, before any gate.

        Raises:
            FrameError: It is not that of the session's other fields.
        """

    @abstractmethod
    def restore(self, records: SessionReader, removed: Collection[int]) -> None:
        """Hold what is stored, when a session begins or goes on.

        Args:
            records: The session's file.
            removed: Fields that were removed; their instances are not held.
        """

    @abstractmethod
    def plan(self, sequence: int, frame: Frame, placement: Placement) -> InstancePlan:
        """Plan what a field changes at its position; changes nothing."""

    @abstractmethod
    def commit(self, plan: PlanT) -> None:
        """Hold what a plan brings; no other plan may have been committed since it was made."""

    @abstractmethod
    def remove(self, sequence: int) -> Removal:
        """Take a field out."""

    @abstractmethod
    def order(self, keys: Sequence[str]) -> InstanceOrder:
        """Return the canonical order of instances, by their keys."""

    @abstractmethod
    def coverage(self) -> float:
        """Return the share held of the tissue known so far, 0 to 1."""

    @abstractmethod
    def shares(self) -> Mapping[str, float]:
        """Return instance key -> share seen, of all that were met or are expected; any thread."""

    @abstractmethod
    def focus(self) -> Mapping[str, float]:
        """Return instance key -> sharpness, where it was measured; from any thread."""

    @abstractmethod
    def extent(self, key: str) -> Region | None:
        """Return where an instance lies, stage µm; None where it has no position."""
