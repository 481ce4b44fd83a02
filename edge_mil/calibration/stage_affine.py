"""Measure how the camera lies on the stage, from fields at known stage positions."""

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
"""Factor by which the declared pixel size may be wrong when it says which pairs cannot overlap."""
REACH = 0.03
"""Distance from the predicted shift within which the second search looks, share of the field."""
NEAR_RESPONSE = 0.6
MIN_TEXTURE = 0.02
"""Response and texture that a registration needs within that reach. On `stage_tiles`, which overlap
by a tenth, this takes six pairs instead of three, with errors of 1.5 px at most."""
MIN_MOVE_PX = 8.0
"""A move of a few pixels says little of the scale."""


@dataclass(frozen=True, slots=True, eq=False)
class StageMap:
    """The affine from the camera to the stage.

    Attributes:
        affine: From camera pixels (x, y) to stage um, row-major 2 x 2.
        residual_px: Root mean square of what the affine leaves of the moves, camera pixels.
        moves: How many moves it rests on.
        left_out: How many registered moves do not agree with it.
    """

    affine: tuple[float, float, float, float]
    residual_px: float
    moves: int
    left_out: int

    @property
    def mpp(self) -> float:
        """Pixel size, um/px: the side of the square that one pixel covers."""
        return math.sqrt(abs(self.determinant))

    @property
    def determinant(self) -> float:
        """Area of a pixel, um2; negative where the image is mirrored."""
        return self.affine[0] * self.affine[3] - self.affine[1] * self.affine[2]

    @property
    def mirrored(self) -> bool:
        """Whether the camera sees the stage as in a mirror."""
        return self.determinant < 0

    @property
    def rotation_deg(self) -> float:
        """Angle of the camera's x axis on the stage, -180 to 180, y down."""
        return math.degrees(math.atan2(self.affine[2], self.affine[0]))


def measure_stage(
    pyramids: Sequence[RegistrationPyramid],
    positions: Sequence[tuple[float, float]],
    mpp: float | None,
) -> StageMap:
    """Measure the affine from camera to stage.

    Every pair of fields that overlap gives a move: so many um of the stage, so many pixels of the
    camera. The affine is the least-squares fit of the moves that agree. Which those are is found
    by trying every pair of moves.

    Args:
        pyramids: The fields.
        positions: Stage x and y of each field's centre, um.
        mpp: Pixel size where it is about known, um/px: pairs that cannot overlap are not tried.

    Raises:
        CalibrationError: Too few fields overlap, all moves lie on one line, or they disagree.

    Source:
        An exhaustive form of RANSAC (Fischler & Bolles, Commun ACM 24:381, 1981): with at most
        120 moves every minimal sample can be tried.
    """
    if len(pyramids) > MOST_FIELDS:
        raise CalibrationError(
            f"There are {len(pyramids)} fields and at most {MOST_FIELDS} are used; take a few "
            "around one place, overlapping by half."
        )
    # 1. Register every pair that may overlap, wherever it fits.
    moves = _Moves(pyramids, positions, mpp)
    moves.register_all()
    # 2. Register the other pairs near the shift that a first affine predicts.
    if len(moves.shifts_px) >= 2 and _spread(moves.shifts_px) >= MIN_SPREAD:
        moves.register_near(_consensus(np.array(moves.steps_um), np.array(moves.shifts_px)))
    steps = np.array(moves.steps_um).reshape(-1, 2)
    shifts = np.array(moves.shifts_px).reshape(-1, 2)
    if len(steps) < MIN_MOVES:
        raise CalibrationError(
            f"Of {len(moves.pairs)} pairs of fields {len(steps)} could be registered and "
            f"{MIN_MOVES} are needed; take 4 or more fields of a place with tissue, in focus, "
            "moving the stage by a third of the field in x and in y between them.",
            pairs=len(moves.pairs),
            registered=len(steps),
        )
    if _spread(shifts) < MIN_SPREAD:
        raise CalibrationError(
            "All stage moves lie on one line, which leaves the other direction unknown; move the "
            "stage in x and in y."
        )
    # 3. Keep the moves that agree with one affine, and fit it to them.
    agreeing = _agreeing(steps, shifts)
    count = int(agreeing.sum())
    if count < MIN_MOVES or count < MIN_AGREEING * len(steps):
        raise CalibrationError(
            f"Only {count} of {len(steps)} stage moves agree with one pixel size and rotation; "
            "check that the positions are those of these images, in µm, and that the stage had "
            "settled.",
            agreeing=count,
            moves=len(steps),
        )
    affine = _fit(steps[agreeing], shifts[agreeing])
    if _spread(shifts[agreeing]) < MIN_SPREAD:
        raise CalibrationError("The moves that agree lie on one line; move in x and in y.")
    residuals = _residuals_px(affine, steps[agreeing], shifts[agreeing])
    a, b, c, d = (float(x) for x in affine.ravel())
    rms = float(np.sqrt(np.square(residuals).mean()))
    return StageMap((a, b, c, d), rms, count, len(steps) - count)


class _Moves:
    """The registered moves between pairs of fields.

    Attributes:
        pairs: (first, second, move of the stage in um) of each pair that may overlap.
        steps_um: Move of the stage of each registered pair.
        shifts_px: Shift of the camera's pixels of the same pairs.
    """

    def __init__(
        self,
        pyramids: Sequence[RegistrationPyramid],
        positions: Sequence[tuple[float, float]],
        mpp: float | None,
    ) -> None:
        self.steps_um: list[Float64Array] = []
        self.shifts_px: list[tuple[float, float]] = []
        self._pyramids = pyramids
        self._size_px = max(max(p.grey.shape) * p.factor for p in pyramids) if pyramids else 0
        self.pairs = []
        for i, j in itertools.combinations(range(len(pyramids)), 2):
            step = np.subtract(positions[j], positions[i])
            if mpp is None or float(np.abs(step).max()) <= mpp * self._size_px * SLACK:
                self.pairs.append((i, j, step))
        self._unregistered: list[tuple[int, int, Float64Array]] = []

    def register_all(self) -> None:
        """Register every pair at any shift; only what is sure counts."""
        for i, j, step in self.pairs:
            found = register_pair(self._pyramids[i], self._pyramids[j])
            if found is None or not found.reliable:
                self._unregistered.append((i, j, step))
            elif math.hypot(found.dx, found.dy) >= MIN_MOVE_PX:
                self._add(step, found)

    def register_near(self, affine: Float64Array) -> None:
        """Register the other pairs near the shift that an affine predicts.

        There a smaller overlap is enough.
        """
        inverse = np.linalg.inv(affine)
        reach = max(MIN_MOVE_PX, REACH * self._size_px)
        for i, j, step in self._unregistered:
            dx, dy = (float(x) for x in inverse @ step)
            if max(abs(dx), abs(dy)) >= self._size_px or math.hypot(dx, dy) < MIN_MOVE_PX:
                continue
            found = register_pair(self._pyramids[i], self._pyramids[j], (dx, dy), reach)
            if (
                found is not None
                and found.response >= NEAR_RESPONSE
                and found.texture >= MIN_TEXTURE
                and math.hypot(found.dx - dx, found.dy - dy) <= reach
            ):
                self._add(step, found)

    def _add(self, step: Float64Array, found: Registration) -> None:
        self.steps_um.append(step)
        self.shifts_px.append((found.dx, found.dy))


def _spread(shifts: Float64Array | list[tuple[float, float]]) -> float:
    """Return the smaller over the larger extent of shifts: 0 where they lie on a line."""
    extents = np.linalg.svd(np.asarray(shifts, dtype=np.float64), compute_uv=False)
    return float(extents[1] / extents[0]) if extents[0] > 0 else 0.0


def _agreeing(steps: Float64Array, shifts: Float64Array) -> npt.NDArray[np.bool_]:
    """Return which moves agree with the affine that most moves agree with, bool (n,)."""
    return _residuals_px(_consensus(steps, shifts), steps, shifts) <= MAX_RESIDUAL_PX


def _consensus(steps: Float64Array, shifts: Float64Array) -> Float64Array:
    """Return the affine of that pair of moves with which most moves agree."""
    best, most = np.eye(2), 0
    for pair in itertools.combinations(range(len(steps)), 2):
        rows = list(pair)
        if _spread(shifts[rows]) < MIN_SPREAD:
            continue
        affine = _fit(steps[rows], shifts[rows])
        axes = np.linalg.svd(affine, compute_uv=False)
        if axes[1] <= 0 or axes[0] > MAX_STRETCH * axes[1]:
            continue
        agreeing = int((_residuals_px(affine, steps, shifts) <= MAX_RESIDUAL_PX).sum())
        if agreeing > most:
            best, most = affine, agreeing
    return best


def _fit(steps: Float64Array, shifts: Float64Array) -> Float64Array:
    """Return the 2 x 2 from camera pixels to stage um that fits moves best (least squares)."""
    solution: Float64Array = np.linalg.lstsq(shifts, steps, rcond=None)[0].T
    return solution


def _residuals_px(affine: Float64Array, steps: Float64Array, shifts: Float64Array) -> Float64Array:
    """Return what an affine leaves of each move, camera pixels, (n,)."""
    mpp = math.sqrt(abs(float(np.linalg.det(affine)))) or math.inf
    residuals: Float64Array = np.hypot(*(shifts @ affine.T - steps).T) / mpp
    return residuals
