"""How the camera lies on the stage, from fields at known stage positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mil.errors import CalibrationError
from edge_mil.imaging.registration.pairwise import Registration, register_pair
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import Float64Array

MOST_FIELDS = 16
"""120 pairs; more add time and no accuracy."""
MIN_MOVES = 4
"""Two moves give an affine, and with two more a wrong one is seen."""
MIN_AGREEING = 0.6
"""Share of the registered moves that must agree; otherwise the content repeats itself."""
MAX_RESIDUAL_PX = 3.0
"""A move that the affine misses by more is wrong: stages repeat to about a micrometre."""
MAX_STRETCH = 1.1
"""Longest over shortest axis: pixels are square within a tenth."""
MIN_SPREAD = 0.1
"""Smallest over largest extent of the moves; below that they lie on a line."""
SLACK = 1.1
"""By how much the pixel size may be wrong when it says which fields cannot overlap."""
REACH = 0.03
"""How far from the place that the first moves predict, as a share of the field."""
NEAR_RESPONSE = 0.6
MIN_TEXTURE = 0.02
"""What a lock needs within that reach. On `stage_tiles`, which overlap by a tenth, it takes six
pairs instead of three, with errors of 1.5 px at most."""
MIN_MOVE_PX = 8.0
"""A move of a few pixels says little of the scale."""


@dataclass(frozen=True, slots=True, eq=False)
class StageMap:
    """The camera on the stage.

    Attributes:
        affine: From camera pixels (x, y) to stage um, row-major 2 x 2.
        residual_px: Root mean square of what the affine leaves of the moves, camera pixels.
        moves: How many moves it rests on.
        wrong: How many registered moves do not agree with it and were left out.
    """

    affine: tuple[float, float, float, float]
    residual_px: float
    moves: int
    wrong: int

    @property
    def mpp(self) -> float:
        """Pixel size, um/px: the side of the square that one pixel covers."""
        return math.sqrt(abs(self.determinant))

    @property
    def determinant(self) -> float:
        """Area of a pixel, um2; negative where the picture is mirrored."""
        return self.affine[0] * self.affine[3] - self.affine[1] * self.affine[2]

    @property
    def mirrored(self) -> bool:
        """Whether the camera sees the stage as in a mirror."""
        return self.determinant < 0

    @property
    def rotation_deg(self) -> float:
        """Angle of the camera's x axis on the stage, -180 to 180, y down."""
        return math.degrees(math.atan2(self.affine[2], self.affine[0]))

    @property
    def in_words(self) -> str:
        """Rotation and flips, for people."""
        turned, flips = self.rotation_deg, ""
        if self.mirrored:
            flips = "x runs the other way" if abs(turned) > 90 else "y runs the other way"
        elif abs(turned) > 135:
            flips = "x and y run the other way"
        if flips.startswith("x"):
            turned -= math.copysign(180, turned)
        return f"turned by {turned:.2f} degrees" + (f"; {flips}" if flips else "")


def measure_stage(
    pictures: Sequence[RegistrationPyramid],
    positions: Sequence[tuple[float, float]],
    mpp: float | None,
) -> StageMap:
    """Measure the affine from camera to stage.

    Every pair of fields that overlap gives a move: so many um of the stage, so many pixels of the
    picture. The affine is the least-squares fit of the moves that agree; which those are is found
    by trying every pair of moves.

    Args:
        pictures: The fields.
        positions: Stage x and y of each field's centre, um.
        mpp: Pixel size where it is about known, um/px: pairs that cannot overlap are not tried.

    Raises:
        CalibrationError: Too few fields overlap, all moves lie on one line, or they disagree.
    """
    if len(pictures) > MOST_FIELDS:
        raise CalibrationError(
            f"There are {len(pictures)} fields and at most {MOST_FIELDS} are used; take a few "
            "around one place, overlapping by half."
        )
    moves = _Moves(pictures, positions, mpp)
    moves.search()
    if len(moves.seen) >= 2 and _spread(moves.seen) >= MIN_SPREAD:
        moves.look_where(_consensus(np.array(moves.moved), np.array(moves.seen)))
    moved, seen = np.array(moves.moved).reshape(-1, 2), np.array(moves.seen).reshape(-1, 2)
    if len(moved) < MIN_MOVES:
        raise CalibrationError(
            f"Of {len(moves.pairs)} pairs of fields {len(moved)} could be laid on each other and "
            f"{MIN_MOVES} are needed; take 4 or more fields of a place with tissue, in focus, "
            "moving the stage by a third of the field in x and in y between them.",
            pairs=len(moves.pairs),
            registered=len(moved),
        )
    if _spread(seen) < MIN_SPREAD:
        raise CalibrationError(
            "All stage moves lie on one line, which leaves the other direction unknown; move the "
            "stage in x and in y."
        )
    agreeing = _agreeing(moved, seen)
    count = int(agreeing.sum())
    if count < MIN_MOVES or count < MIN_AGREEING * len(moved):
        raise CalibrationError(
            f"Only {count} of {len(moved)} stage moves agree with one pixel size and rotation; "
            "check that the positions are those of these images, in um, and that the stage had "
            "settled.",
            agreeing=count,
            moves=len(moved),
        )
    affine = _fit(moved[agreeing], seen[agreeing])
    if _spread(seen[agreeing]) < MIN_SPREAD:
        raise CalibrationError("The moves that agree lie on one line; move in x and in y.")
    rest = _rest_px(affine, moved[agreeing], seen[agreeing])
    a, b, c, d = (float(x) for x in affine.ravel())
    return StageMap((a, b, c, d), float(np.sqrt(np.square(rest).mean())), count, len(moved) - count)


class _Moves:
    """The moves between pairs of fields: um of the stage, camera pixels of the picture."""

    def __init__(
        self,
        pictures: Sequence[RegistrationPyramid],
        positions: Sequence[tuple[float, float]],
        mpp: float | None,
    ) -> None:
        self.moved: list[Float64Array] = []
        self.seen: list[tuple[float, float]] = []
        self._pictures = pictures
        self._size = max(max(p.grey.shape) * p.factor for p in pictures) if pictures else 0
        self.pairs = []
        for i, j in itertools.combinations(range(len(pictures)), 2):
            step = np.subtract(positions[j], positions[i])
            if mpp is None or float(np.abs(step).max()) <= mpp * self._size * SLACK:
                self.pairs.append((i, j, step))
        self._left: list[tuple[int, int, Float64Array]] = []

    def search(self) -> None:
        """Lay every pair on each other wherever it fits; only what is sure counts."""
        for i, j, step in self.pairs:
            found = register_pair(self._pictures[i], self._pictures[j])
            if found is None or not found.reliable:
                self._left.append((i, j, step))
            elif math.hypot(found.dx, found.dy) >= MIN_MOVE_PX:
                self._add(step, found)

    def look_where(self, affine: Float64Array) -> None:
        """Lay the other pairs where the first ones say; there a smaller overlap will do."""
        inverse = np.linalg.inv(affine)
        reach = max(MIN_MOVE_PX, REACH * self._size)
        for i, j, step in self._left:
            dx, dy = (float(x) for x in inverse @ step)
            if max(abs(dx), abs(dy)) >= self._size or math.hypot(dx, dy) < MIN_MOVE_PX:
                continue
            found = register_pair(self._pictures[i], self._pictures[j], (dx, dy), reach)
            if (
                found is not None
                and found.response >= NEAR_RESPONSE
                and found.texture >= MIN_TEXTURE
                and math.hypot(found.dx - dx, found.dy - dy) <= reach
            ):
                self._add(step, found)

    def _add(self, step: Float64Array, found: Registration) -> None:
        self.moved.append(step)
        self.seen.append((found.dx, found.dy))


def _spread(seen: Float64Array | list[tuple[float, float]]) -> float:
    """Return the smaller over the larger extent of moves: 0 where they lie on a line."""
    sides = np.linalg.svd(np.asarray(seen, dtype=np.float64), compute_uv=False)
    return float(sides[1] / sides[0]) if sides[0] > 0 else 0.0


def _agreeing(moved: Float64Array, seen: Float64Array) -> npt.NDArray[np.bool_]:
    """Return which moves agree with the affine that most moves agree with, bool (n,)."""
    return _rest_px(_consensus(moved, seen), moved, seen) <= MAX_RESIDUAL_PX


def _consensus(moved: Float64Array, seen: Float64Array) -> Float64Array:
    """Return the affine of that pair of moves with which most moves agree."""
    best, most = np.eye(2), 0
    for pair in itertools.combinations(range(len(moved)), 2):
        rows = list(pair)
        if _spread(seen[rows]) < MIN_SPREAD:
            continue
        affine = _fit(moved[rows], seen[rows])
        axes = np.linalg.svd(affine, compute_uv=False)
        if axes[1] <= 0 or axes[0] > MAX_STRETCH * axes[1]:
            continue
        near = int((_rest_px(affine, moved, seen) <= MAX_RESIDUAL_PX).sum())
        if near > most:
            best, most = affine, near
    return best


def _fit(moved: Float64Array, seen: Float64Array) -> Float64Array:
    """Return the 2 x 2 that brings camera pixels to stage um, by least squares."""
    solution: Float64Array = np.linalg.lstsq(seen, moved, rcond=None)[0].T
    return solution


def _rest_px(affine: Float64Array, moved: Float64Array, seen: Float64Array) -> Float64Array:
    side = math.sqrt(abs(float(np.linalg.det(affine)))) or math.inf
    rest: Float64Array = np.hypot(*(seen @ affine.T - moved).T) / side
    return rest
