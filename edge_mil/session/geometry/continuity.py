"""Notice that what lies on the stage is no longer what the session began with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_mil.imaging.registration.stage_comparison import MAX_STAGE_ERROR_UM
from edge_mil.session.geometry.causes import Cause
from edge_mil.session.geometry.stage_fit import Move

MIN_DIFFERING = 3
"""Fields that must differ from what was seen before, without one that agrees."""

MIN_AGREEING = 2
"""Fields that must have agreed before: else it is the stage that is wrong."""


@dataclass(frozen=True, slots=True)
class Continuity:
    """Whether fields still agree with those before a point of the session.

    Attributes:
        boundary: Index of the first field that differed from earlier ones, while none since then
            agreed with one before it; None: all agree.
        differing: How many fields have differed since then.
        agreeing: How many fields had agreed with earlier ones before.
    """

    boundary: int | None = None
    differing: int = 0
    agreeing: int = 0

    def after(self, index: int, agrees: Sequence[int], differs: Sequence[int]) -> Continuity:
        """Return the same after one more field.

        Args:
            index: Number of the field in the order of arrival.
            agrees: Indices of the earlier fields that it agrees with.
            differs: Indices of those that it should share a place with, and does not.
        """
        before = index if self.boundary is None else self.boundary
        if any(earlier < before for earlier in agrees):
            return Continuity(agreeing=self.agreeing + 1)
        if any(earlier < before for earlier in differs):
            return Continuity(before, self.differing + 1, self.agreeing)
        return self

    @property
    def broken(self) -> bool:
        """Whether something else lies on the stage since `boundary`."""
        return self.differing >= MIN_DIFFERING and self.agreeing >= MIN_AGREEING


def other_slide(fields: int, first: int) -> Cause:
    """Name what is most likely where several fields show nothing of what was seen there before."""
    return Cause(
        "other-slide",
        f"Since field {first}, {fields} fields should show places that were seen before and show "
        "nothing of them: another slide lies on the stage, or the slide or the objective was "
        "moved. Put the slide back and release the session as the same slide (edge-mil session "
        "release ID --same-slide), or open a new session for the new one.",
    )


def moved_slide(moves: Sequence[Move]) -> Cause | None:
    """Say whether all fields are displaced alike against those before: the slide was pushed."""
    errors = [
        (i[0] - s[0], i[1] - s[1]) for i, s in ((move.image_um, move.stage_um) for move in moves)
    ]
    x = sum(error[0] for error in errors) / len(errors)
    y = sum(error[1] for error in errors) / len(errors)
    if any(max(abs(a - x), abs(b - y)) > MAX_STAGE_ERROR_UM for a, b in errors):
        return None
    return Cause(
        "slide-moved",
        f"{len(moves)} fields lie ({x:+.0f}, {y:+.0f}) µm from where the stage says, against those "
        f"before field {moves[0].later}: the slide was pushed, or the stage lost its zero. Put it "
        "back and release the session as the same slide (edge-mil session release ID "
        "--same-slide), or open a new session.",
    )


def other_objective(ratio: float, first: int) -> Cause:
    """Name another objective."""
    return Cause(
        "objective",
        f"Since field {first} the fields fit the earlier ones only at {ratio:g} times their "
        "magnification: the objective or the binning was changed. Put the old one back and release "
        "the session as the same slide (edge-mil session release ID --same-slide), or open a new "
        "session for the new one.",
    )
