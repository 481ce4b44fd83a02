"""Combine the registrations of one field to several key frames into one position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_mil.imaging.registration.key_frames import KeyFrame
from edge_mil.imaging.registration.pairwise import Registration
from edge_mil.imaging.registration.pose_graph import Position

AGREE_PX = 4.0
"""Largest difference of two positions that agree, camera pixels; a larger one is a closed loop."""

STRONG = 0.2
"""Overlap from which a single registration is enough: of 1400 random pairs none was wrong there,
and the best response of the wrong ones was 0.35."""

MIN_WEIGHT_RESPONSE = 1e-3
"""Least response in a weight, so that every weight is positive."""


@dataclass(frozen=True, slots=True)
class KeyRegistration:
    """Registration of a field to one key frame."""

    key: KeyFrame
    registration: Registration

    @property
    def position(self) -> Position:
        """Position of the field on the session's lattice, camera pixels."""
        return self.key.x + self.registration.dx, self.key.y + self.registration.dy

    @property
    def weight(self) -> float:
        """Weight among several: squared response times overlap."""
        response = max(MIN_WEIGHT_RESPONSE, self.registration.response)
        return response**2 * self.registration.overlap

    @property
    def strong(self) -> bool:
        """Whether it needs no other registration that agrees."""
        return self.registration.overlap >= STRONG

    def agrees(self, other: KeyRegistration) -> bool:
        """Say whether two registrations give the same position."""
        (x, y), (u, v) = self.position, other.position
        return max(abs(x - u), abs(y - v)) <= AGREE_PX


def mean_position(found: Sequence[KeyRegistration]) -> Position:
    """Return the weighted mean of the positions."""
    total = sum(one.weight for one in found)
    return (
        sum(one.weight * one.position[0] for one in found) / total,
        sum(one.weight * one.position[1] for one in found) / total,
    )


def supported(found: Sequence[KeyRegistration]) -> list[KeyRegistration]:
    """Return the registrations that are strong, or that another one agrees with."""
    return [
        one
        for one in found
        if one.strong or any(other is not one and one.agrees(other) for other in found)
    ]
