"""One field set against an earlier one that shows, or should show, some of the same place."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames
from edge_mil.imaging.registration.pairwise import (
    confirm_shift,
    overlap_texture,
    register_near,
    register_pair,
)
from edge_mil.imaging.registration.pose_graph import Position
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

DIFFERS_RESPONSE = 0.45
DIFFERS_TEXTURE = 0.1
"""Two fields do not show one place where the best response within the stage's error is below this
and a tenth of their overlap has texture in one of them or in both. How often either is wrong:
`docs/design/imaging.md`, "Geometry"."""


class PairOutcome(enum.Enum):
    """What two fields say about the stage."""

    AGREES = "agrees"
    """They fit where the stage says, or within the stage's error of it."""
    DISPLACED = "displaced"
    """They fit elsewhere."""
    DIFFERS = "differs"
    """They should share a place with texture, and nothing fits where the stage says."""


@dataclass(frozen=True, slots=True)
class FieldPair:
    """One field against an earlier one.

    Attributes:
        earlier: Sequence of the earlier field.
        outcome: What they say.
        shift_px: Displacement by the images, camera pixels (x, y); None where nothing fits.
        overlap: Share of the field that overlaps: by the images, else by the stage.
    """

    earlier: int
    outcome: PairOutcome
    shift_px: Position | None
    overlap: float


def compare_at(
    keys: KeyFrames,
    key: KeyFrame,
    pyramid: RegistrationPyramid,
    position: Position,
    reach_px: float,
) -> FieldPair | None:
    """Say whether a field and a key frame agree at a position that is known to within a reach.

    Args:
        keys: Holds the key frame's image.
        key: The key frame.
        pyramid: The field.
        position: Its top left corner on the lattice, camera pixels.
        reach_px: Largest error of the position, camera pixels.

    Returns:
        None where the images say nothing: too little of them overlaps, or too little has texture.
    """
    fixed = keys.pyramid(key.sequence)
    dx, dy = position[0] - key.x, position[1] - key.y
    overlap = key.overlap(*position)
    if confirm_shift(fixed, pyramid, dx, dy):
        return FieldPair(key.sequence, PairOutcome.AGREES, (dx, dy), overlap)
    found = register_near(fixed, pyramid, dx, dy)
    if found is None or not found.reliable:
        if overlap_texture(fixed, pyramid, dx, dy) < DIFFERS_TEXTURE:
            return None
        found = register_pair(fixed, pyramid, (dx, dy), reach_px)
    if found is not None and found.reliable:
        return FieldPair(key.sequence, PairOutcome.AGREES, (found.dx, found.dy), found.overlap)
    if found is None or found.response < DIFFERS_RESPONSE:
        return FieldPair(key.sequence, PairOutcome.DIFFERS, None, overlap)
    return None


def search_anywhere(
    key: KeyFrame, fixed: RegistrationPyramid, pyramid: RegistrationPyramid
) -> FieldPair | None:
    """Register a field with an earlier one wherever they fit; None where they do not."""
    found = register_pair(fixed, pyramid)
    if found is None or not found.reliable:
        return None
    return FieldPair(key.sequence, PairOutcome.DISPLACED, (found.dx, found.dy), found.overlap)
