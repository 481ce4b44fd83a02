"""Fit the affine and the backlash of a stage to overlapping fields, with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.session.geometry.observation import Vector
from edge_mil.types import Float64Array

MIN_TRAVEL_UM = 40.0
"""Root mean square of the moves along an axis from which it is fitted: ten times the jitter of a
bad stage. A path by hand of smaller steps says more of the jitter than of the scale."""

LEAST_ERROR_UM = 0.5
"""Deviation of one move that is assumed at least: a registration is right to a camera pixel."""

MIN_STRETCH_MOVES = 8
"""Moves from which a stretch is fitted too: with fewer it takes what jitter leaves."""

MIN_TELLING = 0.3
"""Smallest singular value of the terms, each of norm 1, from which they can be told apart: 1 where
they have nothing in common, 0 where one is a mixture of the others."""

MIN_CHANGED, MIN_UNCHANGED = 2, 3
"""Moves after a change of direction, and without one, from which a backlash is fitted."""

SHARED_FIELDS = 2.0
"""Variance of a move over that of a position: both of its ends have an error. A field is in several
moves, so it is the fields, and not the moves, that average out."""

SIGMAS, SMALL_SAMPLE = 3.5, 6.0
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
    turned = np.array([move.turn for move in moves], np.float64)
    tells = [_tells_backlash(turned[:, axis]) for axis in (0, 1)]
    # Where the backlash is not fitted, moves that may hold it would pass it on to the scale.
    straight = [m for m in moves if all(t or not u for t, u in zip(tells, m.turn, strict=True))]
    moves = straight or moves
    stage = np.array([move.stage_um for move in moves], np.float64)
    image = np.array([move.image_um for move in moves], np.float64)
    turns = np.array([move.turn for move in moves], np.float64)
    u, v, nothing = image[:, 0], image[:, 1], np.zeros(len(moves))
    extent = np.sqrt((image**2).mean(axis=0))
    known = (bool(extent[0] > MIN_TRAVEL_UM), bool(extent[1] > MIN_TRAVEL_UM))
    # 1. The columns of the design: first the rows of x, then those of y.
    columns = {"scale": np.concatenate([u, v]), "rotation": np.concatenate([-v, u])}
    if all(known) and len(moves) >= MIN_STRETCH_MOVES:
        columns["stretch"] = np.concatenate([u, -v]) / 2
    for name, axis in (("backlash_x", 0), ("backlash_y", 1)):
        if tells[axis]:
            halves = [nothing, nothing]
            halves[axis] = turns[:, axis]
            columns[name] = np.concatenate(halves)
    _leave_out_alike(columns)
    freedom = 2 * len(moves) - len(columns)
    if not any(known) or freedom < 1:
        return StageFit(known=known, moves=len(moves))
    # 2. The fit.
    ends = {end for move in moves for end in (move.earlier, move.later)}
    solution, errors = _least_squares(
        np.stack(list(columns.values()), axis=1),
        (stage - image).T.ravel(),
        SHARED_FIELDS * len(moves) / (len(ends) - 1),
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


def _leave_out_alike(columns: dict[str, Float64Array]) -> None:
    """Take out optional terms that the moves cannot tell from others.

    On a straight path, say, a stretch looks like a rotation, and a backlash like a scale.
    """
    for name in ("stretch", "backlash_y", "backlash_x"):
        if name not in columns:
            continue
        design = np.stack(list(columns.values()), axis=1)
        unit = design / np.maximum(np.linalg.norm(design, axis=0), 1e-9)
        if float(np.linalg.svd(unit, compute_uv=False)[-1]) < MIN_TELLING:
            del columns[name]


def _tells_backlash(turns: Float64Array) -> bool:
    """Say whether there are moves enough with and without a change of direction."""
    changed = int((np.abs(turns) > 0).sum())
    return changed >= MIN_CHANGED and len(turns) - changed >= MIN_UNCHANGED


def _least_squares(
    design: Float64Array, error: Float64Array, shared: float
) -> tuple[Float64Array, Float64Array]:
    """Return the solution of ordinary least squares and its standard errors.

    No move is weighted down: a fit of few moves that leaves some of them out is sure of anything.
    `shared` is the factor of the variance for moves that share fields.
    """
    solution = np.asarray(np.linalg.lstsq(design, error, rcond=None)[0], np.float64)
    residual = error - design @ solution
    freedom = max(1, len(error) - design.shape[1])
    variance = max(LEAST_ERROR_UM**2, float((residual**2).sum()) / freedom)
    covariance = shared * variance * np.linalg.pinv(design.T @ design)
    return solution, np.sqrt(np.maximum(np.diag(covariance), 0.0))
