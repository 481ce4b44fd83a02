"""Finds fields by what they show: near by, by content when lost, and where a path closes a loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames, key_frame
from edge_mil.imaging.registration.magnification import fits_at_scale
from edge_mil.imaging.registration.pairwise import MIN_RESPONSE, Registration, confirm, register
from edge_mil.imaging.registration.pose_graph import PoseEdge, Position, settle
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

NEAR = 1.3
"""Fields around the last place in which a field is looked for first."""

MOST_NEAR = 6
"""Key fields near by that a field is registered with before it counts as lost."""

SEARCHED_NEAR, SEARCHED_FAR = 24, 40
"""Key fields that are searched when lost: the nearest, and a part of all others. The next field
searches the next part, so that a large slide does not stop the camera for seconds."""

MOST_LINKS = 8
"""Key fields that a field is registered with once its place is about known."""

MIN_LINK = 0.12
"""Share of a field that a key field must show to be asked."""

KEY_OVERLAP = 0.6
"""A field that shares less than this with every key field becomes one."""

KEY_TEXTURE = 0.03
"""Share with structure below which a field cannot be recognised, so that it becomes no key field:
on bare glass, with dust, registration locks on the dust."""

ORIGIN_TEXTURE = 0.1
"""Share with structure that the first field needs: were a crumb at the slide's edge the origin, all
of the tissue beyond the glass around it would be nowhere."""

AGREE_PX = 4.0
"""Two registrations this close say the same place; what differs by more is a loop that closes."""

STRONG = 0.2
"""Overlap from which a single registration is enough: of 1400 random pairs none was wrong there,
and the best response of the wrong ones was 0.35."""

Register = Callable[
    [RegistrationPyramid, RegistrationPyramid, KeyFrame, Position | None], Registration | None
]
"""Registers a picture (second) on a key field (first and third); the last is where its top left
corner about lies on it, camera pixels, where that is known."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameLocation:
    """Where a field lies; nothing is changed until `KeyFrameLocalizer.apply`.

    Attributes:
        sequence: Number of the field.
        found: Whether its place is known.
        x: Column of its left edge on the lattice, whole camera pixels; 0 when not found.
        y: Row of its top edge.
        response: Of the best registration, believed or not; 1 for the first field.
        needed: The response that it would have taken.
        fit: The best registration of a field that was not found; None where nothing fitted at all.
        anchor: Key field that it hangs on, itself when it is one; 0 when not found.
        key: The key field that it becomes, or None.
        moved: Key field -> its new position, where a loop closed.
        scale_ratio: Magnification over that of the key fields, where it fits at another; else 1.
    """

    sequence: int
    found: bool
    x: int = 0
    y: int = 0
    response: float = 0.0
    needed: float = MIN_RESPONSE
    fit: Registration | None = None
    anchor: int = 0
    key: KeyFrame | None = None
    moved: dict[int, Position] = field(default_factory=dict)
    scale_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class _Tie:
    """A field registered with a key field."""

    key: KeyFrame
    fit: Registration

    @property
    def place(self) -> Position:
        return self.key.x + self.fit.dx, self.key.y + self.fit.dy

    @property
    def weight(self) -> float:
        return max(1e-3, self.fit.response) ** 2 * self.fit.overlap


class KeyFrameLocalizer:
    """Knows the key fields of a session; one owner, one thread."""

    def __init__(self, size_px: tuple[int, int], register_pair: Register | None = None) -> None:
        """Begin with no field known.

        Args:
            size_px: (width, height) of the fields, camera pixels.
            register_pair: Registers two pictures; None is `register_on_key`.
        """
        self.size_px = size_px
        self.keys = KeyFrames()
        self.last: tuple[int, int, int] | None = None
        self._register = register_pair or register_on_key

    def find(self, sequence: int, picture: RegistrationPyramid) -> FrameLocation:
        """Say where a field lies.

        Args:
            sequence: Its number.
            picture: Its picture; it shows tissue.
        """
        if not len(self.keys):
            return self._first(sequence, picture)
        ties, best = self._near(picture)
        if not ties:
            ties, best = self._lost(sequence, picture, best)
        if not ties:
            last = self.keys.near(*(self.last or (0, 0, 0))[1:], math.inf)[:2]
            pictures = [self.keys.picture(key.sequence) for key in last]
            return FrameLocation(
                sequence,
                found=False,
                response=best.response if best else 0.0,
                needed=best.needed if best else MIN_RESPONSE,
                fit=best,
                scale_ratio=fits_at_scale(pictures, picture),
            )
        ties = self._around(picture, ties)
        return self._placed(sequence, picture, ties)

    def apply(self, location: FrameLocation) -> None:
        """Take what `find` found."""
        if not location.found:
            return
        if location.key is not None:
            self.keys.add(location.key)
        self.keys.move(location.moved)
        self.last = (location.sequence, location.x, location.y)

    def restore(self, keys: Sequence[KeyFrame], last: tuple[int, int, int] | None) -> None:
        """Take what is stored: key fields in the order of their numbers, and the last place."""
        for key in keys:
            self.keys.add(key)
        self.last = last

    def _first(self, sequence: int, picture: RegistrationPyramid) -> FrameLocation:
        if picture.texture < ORIGIN_TEXTURE:
            return FrameLocation(sequence, found=False)
        key = key_frame(sequence, picture, self.size_px, (0.0, 0.0))
        return FrameLocation(sequence, found=True, response=1.0, anchor=sequence, key=key)

    def _try(
        self, picture: RegistrationPyramid, key: KeyFrame, guess: Position | None = None
    ) -> Registration | None:
        return self._register(self.keys.picture(key.sequence), picture, key, guess)

    def _near(self, picture: RegistrationPyramid) -> tuple[list[_Tie], Registration | None]:
        """Look around the last place; stop at the first registration that is beyond doubt."""
        assert self.last is not None
        return self._first_sure(picture, self.keys.near(*self.last[1:], NEAR)[:MOST_NEAR])

    def _lost(
        self, sequence: int, picture: RegistrationPyramid, best: Registration | None
    ) -> tuple[list[_Tie], Registration | None]:
        """Look among all others, in turns where they are many."""
        assert self.last is not None
        near = {key.sequence for key in self.keys.near(*self.last[1:], NEAR)[:MOST_NEAR]}
        others = [
            key for key in self.keys.near(*self.last[1:], math.inf) if key.sequence not in near
        ]
        far = others[SEARCHED_NEAR:]
        turn = sequence * SEARCHED_FAR % max(1, len(far))
        turns = (far[turn:] + far[:turn])[:SEARCHED_FAR]
        ties, other = self._first_sure(picture, others[:SEARCHED_NEAR] + turns)
        if best is None or (other is not None and other.response > best.response):
            best = other
        return ties, best

    def _first_sure(
        self, picture: RegistrationPyramid, keys: Sequence[KeyFrame]
    ) -> tuple[list[_Tie], Registration | None]:
        weak: list[_Tie] = []
        best: Registration | None = None
        for key in keys:
            fit = self._try(picture, key)
            if fit is None:
                continue
            if best is None or fit.response > best.response:
                best = fit
            if fit.sure and fit.overlap >= STRONG:
                return [_Tie(key, fit)], fit
            if fit.sure:
                weak.append(_Tie(key, fit))
        # Two that agree are as good as one that shares much.
        for tie in weak:
            agreeing = [other for other in weak if _agree(tie.place, other.place)]
            if len(agreeing) > 1:
                return agreeing, best
        return [], best

    def _around(self, picture: RegistrationPyramid, ties: list[_Tie]) -> list[_Tie]:
        """Register with every key field that shows some of the same place."""
        x, y = ties[0].place
        done = {tie.key.sequence for tie in ties}
        asked = [
            key
            for key in sorted(
                self.keys.near(x, y, 1.0), key=lambda key: (-key.overlap(x, y), key.sequence)
            )
            if key.overlap(x, y) >= MIN_LINK and key.sequence not in done
        ]
        ties = list(ties)
        for key in _spread(asked, MOST_LINKS):
            fit = self._try(picture, key, (x - key.x, y - key.y))
            if fit is not None and fit.sure:
                ties.append(_Tie(key, fit))
        return ties

    def _placed(
        self, sequence: int, picture: RegistrationPyramid, ties: list[_Tie]
    ) -> FrameLocation:
        believed = _believed(ties)
        best = max(believed, key=lambda tie: (tie.weight, -tie.key.sequence))
        x, y = _mean([tie for tie in believed if _agree(tie.place, best.place)])
        closes = any(not _agree(tie.place, best.place) for tie in believed)
        overlap = max(tie.key.overlap(x, y) for tie in believed)
        moved: dict[int, Position] = {}
        key = None
        if closes or (overlap < KEY_OVERLAP and picture.texture >= KEY_TEXTURE):
            links = tuple(
                PoseEdge(tie.key.sequence, sequence, tie.fit.dx, tie.fit.dy, tie.weight)
                for tie in believed
            )
            if closes:
                moved = self._settled(sequence, (x, y), links)
                x, y = moved.pop(sequence)
            key = key_frame(sequence, picture, self.size_px, (x, y), links)
        return FrameLocation(
            sequence,
            found=True,
            x=round(x),
            y=round(y),
            response=best.fit.response,
            needed=best.fit.needed,
            anchor=sequence if key is not None else best.key.sequence,
            key=key,
            moved=moved,
        )

    def _settled(
        self, sequence: int, position: Position, links: tuple[PoseEdge, ...]
    ) -> dict[int, Position]:
        """Close a loop: return the key fields that move, and the new one."""
        fields = self.keys.all()
        before = {key.sequence: key.position for key in fields} | {sequence: position}
        known = [link for key in fields for link in key.links]
        after = settle(before, [*known, *links])
        return {
            key: place for key, place in after.items() if key == sequence or place != before[key]
        }


def register_on_key(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, _: KeyFrame, guess: Position | None
) -> Registration | None:
    """Register two pictures: at the guess where they agree there, else anywhere."""
    found = None if guess is None else confirm(fixed, moving, *guess)
    return register(fixed, moving) if found is None else found


def _agree(a: Position, b: Position) -> bool:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= AGREE_PX


def _mean(ties: Sequence[_Tie]) -> Position:
    total = sum(tie.weight for tie in ties)
    return (
        sum(tie.weight * tie.place[0] for tie in ties) / total,
        sum(tie.weight * tie.place[1] for tie in ties) / total,
    )


def _believed(ties: list[_Tie]) -> list[_Tie]:
    """Leave out what little overlap says alone against the others."""
    return [
        tie
        for tie in ties
        if tie.fit.overlap >= STRONG
        or any(other is not tie and _agree(tie.place, other.place) for other in ties)
    ]


def _spread(keys: list[KeyFrame], count: int) -> list[KeyFrame]:
    """Return at most `count` of them, old ones too: drift shows against the oldest."""
    if len(keys) <= count:
        return keys
    most, rest = keys[: count // 2], keys[count // 2 :]
    return most + sorted(rest, key=lambda key: key.sequence)[: count - len(most)]
