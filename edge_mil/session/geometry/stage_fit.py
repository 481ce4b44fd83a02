"""Fit the affine and the backlash of a stage to overlapping fields, with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.session.geometry.evidence import Vector
from edge_mil.types import Float64Array

MIN_TRAVEL_UM = 15.0
"""Root mean square of the moves along an axis from which the axis is known: the error that a stage
is allowed (`stage_check.MAX_STAGE_ERROR_UM`)."""

LEAST_ERROR_UM = 0.5
"""Deviation of one move that is assumed at least: a registration is right to a camera pixel."""

MEDIAN_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

HUBER = 1.345
"""Deviations up to which a move counts fully: 95 % efficient where errors are normal."""

SHARED_FIELDS = 2.0
"""Factor of the variance: a field is in two moves or more, so their errors are not independent."""

SIGMAS, SMALL_SAMPLE = 3.0, 4.0
"""A number differs from what was declared when it does so by SIGMAS x (1 + SMALL_SAMPLE / degrees
of freedom) standard errors: with few moves the error itself is hardly known."""


@dataclass(frozen=True, slots=True)
class Move:
    """From one field to another, by the stage and by the images.

    Attributes:
        earlier: Sequence of the first.
        later: Sequence of the second.
        stage_um: Displacement by the stage, as it was sent.
        image_um: The same by the images, through the declared affine.
        turn: Half the change of the direction in which the stage had arrived, -1 to 1 on each
            axis: what a backlash is multiplied with.
    """

    earlier: int
    later: int
    stage_um: Vector
    image_um: Vector
    turn: Vector = (0.0, 0.0)

    @property
    def error_um(self) -> float:
        """Largest difference of the two on an axis."""
        return max(abs(s - i) for s, i in zip(self.stage_um, self.image_um, strict=True))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error.

    Attributes:
        value: The number.
        error: Its standard error.
        factor: Standard errors by which it must differ to count; more with few moves.
    """

    value: float
    error: float
    factor: float = SIGMAS

    def beyond(self, nominal: float, tolerance: float) -> bool:
        """Say whether it surely differs from a nominal value by more than a tolerance."""
        return abs(self.value - nominal) - self.factor * self.error > tolerance


@dataclass(frozen=True, slots=True)
class StageFit:
    """What moves say of a stage; a number is None where they do not tell it.

    Attributes:
        matrix: From displacements by the images to those by the stage, row-major 2 x 2; the
            identity where all agrees.
        known: Whether there are moves along x, and along y.
        scale: um of the stage per um of the image.
        rotation_deg: Angle from the images' displacements to the stage's, towards y.
        stretch: Scale along x over that along y.
        backlash_um: Of x and of y: by how much the stage says more than the images when it
            arrives from the other side.
        moves: How many moves it rests on.
    """

    matrix: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)
    known: tuple[bool, bool] = (False, False)
    scale: Estimate | None = None
    rotation_deg: Estimate | None = None
    stretch: Estimate | None = None
    backlash_um: tuple[Estimate | None, Estimate | None] = (None, None)
    moves: int = 0


def fit_stage(moves: Sequence[Move]) -> StageFit:
    """Fit a similarity, a stretch and the backlash of each axis to moves, by least squares.

    With the displacement (u, v) by the images the model is::

        stage_x - u = a u - b v + c u / 2 + backlash_x turn_x
        stage_y - v = b u + a v - c v / 2 + backlash_y turn_y

    The scale is that of the complex number 1 + a + ib, the rotation its angle, and c the stretch
    less 1. A term is left out where no
    move tells it, so one row of fields gives scale and rotation.

    Args:
        moves: Each registered; a few may be wrong.
    """
    if not moves:
        return StageFit()
    stage = np.array([move.stage_um for move in moves], np.float64)
    image = np.array([move.image_um for move in moves], np.float64)
    turns = np.array([move.turn for move in moves], np.float64)
    u, v, nothing = image[:, 0], image[:, 1], np.zeros(len(moves))
    extent = np.sqrt((image**2).mean(axis=0))
    known = (bool(extent[0] > MIN_TRAVEL_UM), bool(extent[1] > MIN_TRAVEL_UM))
    # 1. The columns of the design: first the rows of x, then those of y.
    columns = {"scale": np.concatenate([u, v]), "rotation": np.concatenate([-v, u])}
    if all(known):
        columns["stretch"] = np.concatenate([u, -v]) / 2
    for name, axis in (("backlash_x", 0), ("backlash_y", 1)):
        if _tells_backlash(turns[:, axis]):
            halves = [nothing, nothing]
            halves[axis] = turns[:, axis]
            columns[name] = np.concatenate(halves)
    freedom = 2 * len(moves) - len(columns)
    if not any(known) or freedom < 1:
        return StageFit(known=known, moves=len(moves))
    # 2. The fit. Pairs of fields share fields, so the moves count as half of their number.
    solution, errors = _least_squares(
        np.stack(list(columns.values()), axis=1), (stage - image).T.ravel()
    )
    factor = SIGMAS * (1 + SMALL_SAMPLE / freedom)
    found = {
        name: Estimate(float(value), float(error), factor)
        for name, value, error in zip(columns, solution, errors, strict=True)
    }
    # 3. The numbers by their names.
    scale, rotation = found["scale"], found["rotation"]
    stretch = found.get("stretch")
    c = 0.0 if stretch is None else stretch.value
    return StageFit(
        matrix=(
            1 + scale.value + c / 2,
            -rotation.value,
            rotation.value,
            1 + scale.value - c / 2,
        ),
        known=known,
        scale=Estimate(math.hypot(1 + scale.value, rotation.value), scale.error, factor),
        rotation_deg=Estimate(
            math.degrees(math.atan2(rotation.value, 1 + scale.value)),
            math.degrees(rotation.error),
            factor,
        ),
        stretch=None if stretch is None else Estimate(1 + c, stretch.error, factor),
        backlash_um=(found.get("backlash_x"), found.get("backlash_y")),
        moves=len(moves),
    )


def _tells_backlash(turns: Float64Array) -> bool:
    """Say whether moves with and without a change of direction are there, two of each."""
    changed = int((np.abs(turns) > 0).sum())
    return changed > 1 and len(turns) - changed > 1


def _least_squares(design: Float64Array, error: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the solution and its standard errors; moves that are far off count less.

    Source:
        One step of iteratively reweighted least squares with Huber's weights (Huber, Ann. Math.
        Stat. 35:73, 1964), from the median deviation of a first fit.
    """
    weights = np.ones(len(error))
    solution: Float64Array = np.zeros(design.shape[1])
    residual: Float64Array = error
    for _ in range(2):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(design * root[:, None], error * root, rcond=None)[0]
        solution = np.asarray(found, np.float64)
        residual = np.asarray(error - design @ solution, np.float64)
        spread = max(LEAST_ERROR_UM, float(np.median(np.abs(residual))) * MEDIAN_TO_DEVIATION)
        weights = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(residual), spread / HUBER))
    freedom = max(1, len(error) - design.shape[1])
    variance = max(LEAST_ERROR_UM**2, float((weights * residual**2).sum()) / freedom)
    covariance = SHARED_FIELDS * variance * np.linalg.pinv(design.T @ (design * weights[:, None]))
    return solution, np.sqrt(np.maximum(np.diag(covariance), 0.0))
