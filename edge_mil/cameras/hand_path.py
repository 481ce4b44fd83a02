"""Simulate the path of a slide that is moved by hand: speed, pauses, going back, returning."""

from __future__ import annotations

import math
import random

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
"""Top left pixel (x, y) of a field, level 0."""

MIN_STEP, MAX_STEP = 0.08, 0.36
"""Distance between two frames, in fields: a hand is seldom slower while it moves; beyond the
maximum it outruns a camera at a reader's frame rate, and the motion gate refuses the frame."""

TREMOR = 0.004
"""Standard deviation of the tremor, in fields."""

MIN_LEG, MAX_LEG = 0.4, 3.0
"""Distance of one move to a new place, in fields."""

MIN_TISSUE = 0.25
"""Share of tissue that a reader keeps in view, and less where the slide has little."""

CANDIDATES = 24
"""Random goals of which one is chosen."""

GO_BACK, RETURN = 0.2, 0.35
"""Probability of going back over the last moves; with that of returning to an earlier goal."""

GO_BACK_FRAMES, RETURN_GOALS = 4, 2
"""Frames and goals before either begins."""

PAUSE = 0.5
"""Probability of a pause after a move."""

MAX_PAUSE_FRAMES, MAX_BACK_GOALS = 4, 4
"""Frames of a pause, and goals that are gone back over, at most."""

MIN_PACE = 0.4
"""Slowest pace of a move, as a share of MAX_STEP."""


def hand_path(
    width_px: int,
    height_px: int,
    field_w: int,
    field_h: int,
    fields: int,
    seed: int,
    tissue: npt.NDArray[np.bool_] | None = None,
) -> list[tuple[int, int]]:
    """Return the top left pixels (x, y) of fields along a path like that of a hand.

    The hand goes to places that were not shown yet, slows down, stays for a few frames, goes back
    over its last moves, and returns to much earlier places. Every field lies inside the slide. The
    same arguments give the same path.

    Args:
        width_px: Columns of the slide.
        height_px: Rows of the slide.
        field_w: Columns of a field, not more than the slide's.
        field_h: Rows of a field, not more than the slide's.
        fields: Number of frames.
        seed: Of the path.
        tissue: Tissue of the whole slide at any scale, bool (rows, columns); the path keeps some
            in view. None: no tissue is known.
    """
    slide = _TissueView((width_px, height_px), (field_w, field_h), tissue)
    hand = _HandMotion(slide, random.Random(seed))  # noqa: S311 - a path, no secret
    while len(hand.path) < fields:
        hand.move_on()
    return hand.path[:fields]


class _TissueView:
    """Where fields can lie on the slide, and how much tissue each shows."""

    def __init__(
        self,
        slide: tuple[int, int],
        field: tuple[int, int],
        tissue: npt.NDArray[np.bool_] | None,
    ) -> None:
        self.field = field
        self.limit = (slide[0] - field[0], slide[1] - field[1])
        self._sums: npt.NDArray[np.int64] | None = None
        self.min_share = 0.0
        if tissue is not None and tissue.any():
            rows, columns = tissue.shape
            self._zoom = (columns / slide[0], rows / slide[1])
            self._sums = np.zeros((rows + 1, columns + 1), np.int64)
            self._sums[1:, 1:] = tissue.cumsum(axis=0).cumsum(axis=1)

    def share(self, point: Point) -> float:
        """Return the share of tissue in a field; 1 where no tissue is known."""
        if self._sums is None:
            return 1.0
        rows, columns = self._sums.shape
        x0, x1 = (
            min(columns - 1, max(0, round(x * self._zoom[0])))
            for x in (point[0], point[0] + self.field[0])
        )
        y0, y1 = (
            min(rows - 1, max(0, round(y * self._zoom[1])))
            for y in (point[1], point[1] + self.field[1])
        )
        area = (x1 - x0) * (y1 - y0)
        s = self._sums
        return float(s[y1, x1] - s[y0, x1] - s[y1, x0] + s[y0, x0]) / area if area else 0.0

    def inside(self, point: Point) -> Point:
        """Return the nearest point at which a field lies inside the slide."""
        return (
            min(max(point[0], 0.0), float(self.limit[0])),
            min(max(point[1], 0.0), float(self.limit[1])),
        )

    def distance(self, a: Point, b: Point) -> float:
        """Return the distance of two points, in fields."""
        return math.hypot((a[0] - b[0]) / self.field[0], (a[1] - b[1]) / self.field[1])

    def keeps_tissue(self, a: Point, b: Point) -> bool:
        """Say whether a straight move keeps tissue in view."""
        steps = max(1, math.ceil(self.distance(a, b) / MIN_STEP))
        return all(
            self.share(_between(a, b, step / steps)) >= self.min_share
            for step in range(1, steps + 1)
        )


class _HandMotion:
    """The hand's position, the goals that it reached and the frames on its path."""

    def __init__(self, slide: _TissueView, chance: random.Random) -> None:
        self.slide, self.chance = slide, chance
        self.at = self._start()
        self.path: list[tuple[int, int]] = []
        self.goals: list[Point] = [self.at]
        self._pause()

    def move_on(self) -> None:
        """Go to one goal, and perhaps stay a while."""
        kind = self.chance.random()
        if kind < GO_BACK and len(self.path) > GO_BACK_FRAMES:
            corners = self._back()
        elif kind < RETURN and len(self.goals) > RETURN_GOALS:
            corners = self._return()
        else:
            corners = self._explore()
        for corner in corners:
            self._move(corner)
        self.goals.append(self.at)
        if self.chance.random() < PAUSE:
            self._pause()

    def _start(self) -> Point:
        """Return the point with most tissue among some; it sets what the path can keep in view."""
        best = max((self._anywhere() for _ in range(CANDIDATES)), key=self.slide.share)
        self.slide.min_share = min(MIN_TISSUE, 0.5 * self.slide.share(best))
        return best

    def _anywhere(self) -> Point:
        limit = self.slide.limit
        return self.chance.uniform(0, limit[0]), self.chance.uniform(0, limit[1])

    def _explore(self) -> tuple[Point, ...]:
        """Return the goal within reach that is farthest from all goals so far."""
        reach = []
        for _ in range(CANDIDATES):
            angle = self.chance.uniform(0, 2 * math.pi)
            length = self.chance.uniform(MIN_LEG, MAX_LEG)
            goal = self.slide.inside(
                (
                    self.at[0] + math.cos(angle) * length * self.slide.field[0],
                    self.at[1] + math.sin(angle) * length * self.slide.field[1],
                )
            )
            far_enough = self.slide.distance(self.at, goal) > MIN_STEP
            if far_enough and self.slide.keeps_tissue(self.at, goal):
                reach.append(goal)
        if not reach:
            return self._back()
        new = [min(self.slide.distance(goal, old) for old in self.goals) for goal in reach]
        return (reach[new.index(max(new))],)

    def _return(self) -> tuple[Point, ...]:
        """Return an earlier goal where the way to it keeps tissue in view, else the last ones."""
        goal = self.chance.choice(self.goals[:-1])
        if self.slide.keeps_tissue(self.at, goal):
            return (goal,)
        return self._back()

    def _back(self) -> tuple[Point, ...]:
        """Return the last goals, the latest first."""
        count = min(len(self.goals), self.chance.randint(1, MAX_BACK_GOALS))
        return tuple(reversed(self.goals[-count:]))

    def _move(self, goal: Point) -> None:
        """Go straight to a goal, faster in the middle than at the ends."""
        slide, start = self.slide, self.at
        length = slide.distance(start, goal)
        if not length:
            return
        pace, done = self.chance.uniform(MIN_PACE, 1.0) * MAX_STEP, 0.0
        while done < length:
            ease = math.sin(math.pi * min(1.0, (done + MIN_STEP) / (length + 2 * MIN_STEP)))
            done += max(MIN_STEP, pace * ease)
            self.at = _between(start, goal, min(1.0, done / length))
            self._add_frame()

    def _pause(self) -> None:
        """Stay for a few frames; a resting hand does not move at all."""
        for _ in range(self.chance.randint(1, MAX_PAUSE_FRAMES)):
            self._add_frame(0.0)

    def _add_frame(self, tremor: float = TREMOR) -> None:
        x, y = self.slide.inside(
            (
                self.at[0] + self.chance.gauss(0, tremor) * self.slide.field[0],
                self.at[1] + self.chance.gauss(0, tremor) * self.slide.field[1],
            )
        )
        self.path.append((round(x), round(y)))


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
