"""A path as a hand takes it on a stage without motors: speed, pauses, going back, returning."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]

MIN_STEP, MAX_STEP = 0.08, 0.36
"""Way between two pictures, in fields: the hand is seldom slower while it moves; beyond this it
outruns a camera of the rate that a reader works at, and the gate for motion refuses the picture."""

TREMOR = 0.004
"""Standard deviation of the shake across the way, in fields."""

MAX_LEG = 3.0
"""Longest way in one go, in fields."""

MIN_TISSUE = 0.25
"""Share of tissue that a reader keeps in view: nobody reads glass."""

CANDIDATES = 24
"""Goals that are thought of before one is chosen."""


def hand_path(
    width_px: int,
    height_px: int,
    field_w: int,
    field_h: int,
    fields: int,
    seed: int,
    tissue: npt.NDArray[np.bool_] | None = None,
) -> list[tuple[int, int]]:
    """Return the top left pixels (x, y) of fields along a path such as a hand takes.

    The hand goes to places that were not seen yet, slows down, stays for a few pictures, goes
    back some of its way, and returns to where it was long before. Every field lies inside the
    slide. The same arguments give the same path.

    Args:
        width_px: Columns of the slide.
        height_px: Rows of the slide.
        field_w: Columns of a field, not more than the slide's.
        field_h: Rows of a field, not more than the slide's.
        fields: How many pictures.
        seed: Of the path.
        tissue: Where tissue is, bool (rows, columns), over the whole slide at any scale; the path
            then keeps some in view. None: anywhere.
    """
    ground = _Ground((width_px, height_px), (field_w, field_h), tissue)
    hand = _Hand(ground, random.Random(seed))  # noqa: S311 - a path, no secret
    while len(hand.path) < fields:
        hand.go_on()
    return hand.path[:fields]


class _Ground:
    """Where fields can lie, and how much tissue each shows."""

    def __init__(
        self,
        slide: tuple[int, int],
        field: tuple[int, int],
        tissue: npt.NDArray[np.bool_] | None,
    ) -> None:
        self.field = field
        self.limit = (slide[0] - field[0], slide[1] - field[1])
        self._sums: npt.NDArray[np.int64] | None = None
        self.least = 0.0
        if tissue is not None and tissue.any():
            rows, columns = tissue.shape
            self._zoom = (columns / slide[0], rows / slide[1])
            self._sums = np.zeros((rows + 1, columns + 1), np.int64)
            self._sums[1:, 1:] = tissue.cumsum(axis=0).cumsum(axis=1)

    def share(self, place: Point) -> float:
        """Return the share of tissue in a field; 1 where nothing is known."""
        if self._sums is None:
            return 1.0
        rows, columns = self._sums.shape
        x0, x1 = (
            min(columns - 1, max(0, round(x * self._zoom[0])))
            for x in (place[0], place[0] + self.field[0])
        )
        y0, y1 = (
            min(rows - 1, max(0, round(y * self._zoom[1])))
            for y in (place[1], place[1] + self.field[1])
        )
        area = (x1 - x0) * (y1 - y0)
        s = self._sums
        return float(s[y1, x1] - s[y0, x1] - s[y1, x0] + s[y0, x0]) / area if area else 0.0

    def inside(self, place: Point) -> Point:
        return (
            min(max(place[0], 0.0), float(self.limit[0])),
            min(max(place[1], 0.0), float(self.limit[1])),
        )

    def away(self, a: Point, b: Point) -> float:
        """Return the distance of two fields, in fields."""
        return math.hypot((a[0] - b[0]) / self.field[0], (a[1] - b[1]) / self.field[1])

    def clear(self, a: Point, b: Point) -> bool:
        """Say whether a straight way keeps tissue in view."""
        steps = max(1, math.ceil(self.away(a, b) / MIN_STEP))
        return all(
            self.share(_between(a, b, step / steps)) >= self.least for step in range(1, steps + 1)
        )


@dataclass(frozen=True, slots=True)
class _Leg:
    """One go: from where the hand is over these corners."""

    corners: tuple[Point, ...]


class _Hand:
    def __init__(self, ground: _Ground, chance: random.Random) -> None:
        self.ground, self.chance = ground, chance
        self.at = self._start()
        self.path: list[tuple[int, int]] = []
        self.goals: list[Point] = [self.at]
        self._stay()

    def go_on(self) -> None:
        """Take one leg and stay a while."""
        what = self.chance.random()
        if what < 0.2 and len(self.path) > 4:
            leg = self._back()
        elif what < 0.35 and len(self.goals) > 2:
            leg = self._return()
        else:
            leg = self._explore()
        for corner in leg.corners:
            self._move(corner)
        self.goals.append(self.at)
        if self.chance.random() < 0.5:
            self._stay()

    def _start(self) -> Point:
        best = max(
            (self._anywhere() for _ in range(CANDIDATES)),
            key=self.ground.share,
        )
        # A slide of little tissue is read too: the start sets what can be asked of the way.
        self.ground.least = min(MIN_TISSUE, 0.5 * self.ground.share(best))
        return best

    def _anywhere(self) -> Point:
        limit = self.ground.limit
        return self.chance.uniform(0, limit[0]), self.chance.uniform(0, limit[1])

    def _explore(self) -> _Leg:
        """Go to the place in reach that is farthest from all goals so far."""
        reach = []
        for _ in range(CANDIDATES):
            angle, length = self.chance.uniform(0, 2 * math.pi), self.chance.uniform(0.4, MAX_LEG)
            goal = self.ground.inside(
                (
                    self.at[0] + math.cos(angle) * length * self.ground.field[0],
                    self.at[1] + math.sin(angle) * length * self.ground.field[1],
                )
            )
            if self.ground.away(self.at, goal) > MIN_STEP and self.ground.clear(self.at, goal):
                reach.append(goal)
        if not reach:
            return self._back()
        new = [min(self.ground.away(goal, old) for old in self.goals) for goal in reach]
        return _Leg((reach[new.index(max(new))],))

    def _return(self) -> _Leg:
        """Go straight to an earlier goal where the way is clear, else back over the last ones."""
        goal = self.chance.choice(self.goals[:-1])
        if self.ground.clear(self.at, goal):
            return _Leg((goal,))
        return self._back()

    def _back(self) -> _Leg:
        """Go back over the last corners."""
        count = min(len(self.goals), self.chance.randint(1, 4))
        return _Leg(tuple(reversed(self.goals[-count:])))

    def _move(self, goal: Point) -> None:
        """Go straight to a place: faster in the middle of the way than at its ends."""
        ground, start = self.ground, self.at
        length = ground.away(start, goal)
        if not length:
            return
        pace, done = self.chance.uniform(0.4, 1.0) * MAX_STEP, 0.0
        while done < length:
            ease = math.sin(math.pi * min(1.0, (done + MIN_STEP) / (length + 2 * MIN_STEP)))
            done += max(MIN_STEP, pace * ease)
            self.at = _between(start, goal, min(1.0, done / length))
            self._look()

    def _stay(self) -> None:
        """Look at a place for a few pictures; a resting hand does not move at all."""
        for _ in range(self.chance.randint(1, 4)):
            self._look(0.0)

    def _look(self, tremor: float = TREMOR) -> None:
        x, y = self.ground.inside(
            (
                self.at[0] + self.chance.gauss(0, tremor) * self.ground.field[0],
                self.at[1] + self.chance.gauss(0, tremor) * self.ground.field[1],
            )
        )
        self.path.append((round(x), round(y)))


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
