"""Locate fields by content: near the last one, anywhere when lost, and where a loop closes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_mil.imaging.registration.consensus import KeyRegistration, mean_position, supported
from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames, make_key_frame
from edge_mil.imaging.registration.magnification import magnification_ratio
from edge_mil.imaging.registration.pairwise import (
    MIN_RESPONSE,
    Registration,
    register_near,
    register_pair,
)
from edge_mil.imaging.registration.pose_graph import PoseEdge, Position, optimise_poses
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

NEAR = 1.3
"""Distance from the last located field, in fields, within which a field is searched first."""

MAX_NEAR = 6
"""Key frames within that distance that a field is registered to before it counts as lost."""

MAX_LOST_NEAR, MAX_LOST_FAR = 24, 40
"""Key frames that a lost field is registered to: the nearest, and a part of all others. The next
field takes the next part, so that a large slide does not stop the camera for seconds."""

MAX_EDGES = 8
"""Key frames that a field is registered to once its position is about known."""

MIN_EDGE_OVERLAP = 0.12
"""Share of a field that such a key frame must show."""

KEY_OVERLAP = 0.6
"""A field that overlaps less than this with every key frame becomes one."""

KEY_TEXTURE = 0.03
"""Share with texture that a key frame needs: on bare glass registration locks on dust."""

ORIGIN_TEXTURE = 0.1
"""Share with texture that the first field needs: with a crumb at the slide's edge as the origin, no
field beyond the glass around it could be located."""

MAX_RATIO_KEYS = 2
"""Key frames that are tried at other magnifications."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameLocation:
    """Position of a field; nothing changes until `KeyFrameLocalizer.commit`.

    Attributes:
        sequence: Number of the field.
        found: Whether the position is known.
        x: Column of the field's left edge on the lattice, whole camera pixels; 0 when not found.
        y: Row of its top edge.
        response: Response of the best registration, reliable or not; 1 for the first field.
        needed: Response that it needed.
        registration: Best registration of a field that was not found; None where nothing fitted.
        anchor: Key frame whose position the field follows, itself when it is one; 0 when not
            found.
        key: Key frame that the field becomes, or None.
        moved: Key frame -> its new position, where a loop closed.
        scale_ratio: Magnification over that of the key frames, where it fits at another; else 1.
    """

    sequence: int
    found: bool
    x: int = 0
    y: int = 0
    response: float = 0.0
    needed: float = MIN_RESPONSE
    registration: Registration | None = None
    anchor: int = 0
    key: KeyFrame | None = None
    moved: dict[int, Position] = field(default_factory=dict)
    scale_ratio: float = 1.0


class KeyFrameLocalizer:
    """Locates the fields of a session without a stage; one owner, one thread.

    Attributes:
        size_px: (width, height) of the fields, camera pixels.
        keys: The key frames.
        last: (sequence, x, y) of the last located field; None before the first.
    """

    def __init__(self, size_px: tuple[int, int]) -> None:
        self.size_px = size_px
        self.keys = KeyFrames()
        self.last: tuple[int, int, int] | None = None

    def locate(self, sequence: int, pyramid: RegistrationPyramid) -> FrameLocation:
        """Find the position of a field; changes nothing.

        Args:
            sequence: Number of the field.
            pyramid: The field; it shows tissue.
        """
        if self.last is None:
            return self._first(sequence, pyramid)
        x, y = self.last[1:]
        near = self.keys.near(x, y, NEAR)[:MAX_NEAR]
        found, best = self._first_sure(pyramid, near)
        if not found:
            lost, other = self._first_sure(pyramid, self._lost_keys(sequence, near))
            found = lost
            if best is None or (other is not None and other.response > best.response):
                best = other
        if found:
            return self._located(sequence, pyramid, self._with_neighbours(pyramid, found))
        nearest = self.keys.near(x, y, math.inf)[:MAX_RATIO_KEYS]
        return FrameLocation(
            sequence,
            found=False,
            response=best.response if best else 0.0,
            needed=best.needed if best else MIN_RESPONSE,
            registration=best,
            scale_ratio=magnification_ratio(
                [self.keys.pyramid(key.sequence) for key in nearest], pyramid
            ),
        )

    def commit(self, location: FrameLocation) -> None:
        if not location.found:
            return
        if location.key is not None:
            self.keys.add(location.key)
        self.keys.move(location.moved)
        self.last = (location.sequence, location.x, location.y)

    def restore(self, keys: Sequence[KeyFrame], last: tuple[int, int, int] | None) -> None:
        """Restore the stored key frames, in the order of their numbers, and `last`."""
        for key in keys:
            self.keys.add(key)
        self.last = last

    def register(
        self, key: KeyFrame, pyramid: RegistrationPyramid, guess: Position | None = None
    ) -> Registration | None:
        """Register a field to a key frame: at the guess where they agree there, else anywhere.

        Args:
            key: The key frame.
            pyramid: The field.
            guess: Expected position of the field in the key frame, camera pixels; None: unknown.
        """
        fixed = self.keys.pyramid(key.sequence)
        found = None if guess is None else register_near(fixed, pyramid, *guess)
        return register_pair(fixed, pyramid) if found is None else found

    def _first(self, sequence: int, pyramid: RegistrationPyramid) -> FrameLocation:
        if pyramid.texture < ORIGIN_TEXTURE:
            return FrameLocation(sequence, found=False)
        key = make_key_frame(sequence, pyramid, self.size_px, (0.0, 0.0))
        return FrameLocation(sequence, found=True, response=1.0, anchor=sequence, key=key)

    def _lost_keys(self, sequence: int, tried: Sequence[KeyFrame]) -> list[KeyFrame]:
        """Return the key frames for a lost field: the nearest, and another part of the rest."""
        assert self.last is not None
        done = {key.sequence for key in tried}
        others = [
            key for key in self.keys.near(*self.last[1:], math.inf) if key.sequence not in done
        ]
        far = others[MAX_LOST_NEAR:]
        start = sequence * MAX_LOST_FAR % max(1, len(far))
        return others[:MAX_LOST_NEAR] + (far[start:] + far[:start])[:MAX_LOST_FAR]

    def _first_sure(
        self, pyramid: RegistrationPyramid, keys: Sequence[KeyFrame]
    ) -> tuple[list[KeyRegistration], Registration | None]:
        """Register to key frames until one registration is strong, or two agree at the end.

        Returns:
            The registrations that give the position, empty where none does; the best of all.
        """
        weak: list[KeyRegistration] = []
        best: Registration | None = None
        for key in keys:
            registration = self.register(key, pyramid)
            if registration is None:
                continue
            if best is None or registration.response > best.response:
                best = registration
            if registration.reliable:
                found = KeyRegistration(key, registration)
                if found.strong:
                    return [found], registration
                weak.append(found)
        for one in weak:
            agreeing = [other for other in weak if one.agrees(other)]
            if len(agreeing) > 1:
                return agreeing, best
        return [], best

    def _with_neighbours(
        self, pyramid: RegistrationPyramid, found: list[KeyRegistration]
    ) -> list[KeyRegistration]:
        """Add registrations to the other key frames that show a part of the field."""
        x, y = found[0].position
        done = {one.key.sequence for one in found}
        neighbours = [
            key
            for key in sorted(
                self.keys.near(x, y, 1.0), key=lambda key: (-key.overlap(x, y), key.sequence)
            )
            if key.overlap(x, y) >= MIN_EDGE_OVERLAP and key.sequence not in done
        ]
        found = list(found)
        for key in _largest_and_oldest(neighbours, MAX_EDGES):
            registration = self.register(key, pyramid, (x - key.x, y - key.y))
            if registration is not None and registration.reliable:
                found.append(KeyRegistration(key, registration))
        return found

    def _located(
        self, sequence: int, pyramid: RegistrationPyramid, found: list[KeyRegistration]
    ) -> FrameLocation:
        """Return the position that the registrations give, after closing a loop if there is one."""
        trusted = supported(found)
        best = max(trusted, key=lambda one: (one.weight, -one.key.sequence))
        x, y = mean_position([one for one in trusted if one.agrees(best)])
        closes_loop = any(not one.agrees(best) for one in trusted)
        overlap = max(one.key.overlap(x, y) for one in trusted)
        moved: dict[int, Position] = {}
        key = None
        if closes_loop or (overlap < KEY_OVERLAP and pyramid.texture >= KEY_TEXTURE):
            edges = tuple(
                PoseEdge(
                    one.key.sequence, sequence, one.registration.dx, one.registration.dy, one.weight
                )
                for one in trusted
            )
            if closes_loop:
                moved = self._optimised(sequence, (x, y), edges)
                x, y = moved.pop(sequence)
            key = make_key_frame(sequence, pyramid, self.size_px, (x, y), edges)
        return FrameLocation(
            sequence,
            found=True,
            x=round(x),
            y=round(y),
            response=best.registration.response,
            needed=best.registration.needed,
            anchor=sequence if key is not None else best.key.sequence,
            key=key,
            moved=moved,
        )

    def _optimised(
        self, sequence: int, position: Position, edges: tuple[PoseEdge, ...]
    ) -> dict[int, Position]:
        """Close a loop: return the new positions of the key frames that move and of this one."""
        keys = self.keys.all()
        before = {key.sequence: key.position for key in keys} | {sequence: position}
        known = [edge for key in keys for edge in key.edges]
        after = optimise_poses(before, [*known, *edges])
        return {key: at for key, at in after.items() if key == sequence or at != before[key]}


def _largest_and_oldest(keys: list[KeyFrame], count: int) -> list[KeyFrame]:
    """Return at most `count` of the keys, half of them the oldest: drift shows against those."""
    if len(keys) <= count:
        return keys
    largest, rest = keys[: count // 2], keys[count // 2 :]
    return largest + sorted(rest, key=lambda key: key.sequence)[: count - len(largest)]
