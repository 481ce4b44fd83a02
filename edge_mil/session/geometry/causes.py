"""Name what is wrong with a stage that the images contradict, and what mends it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.imaging.registration.stage_comparison import MAX_STAGE_ERROR_UM
from edge_mil.session.geometry.stage_fit import MIN_TRAVEL_UM, Move, StageFit
from edge_mil.types import Float64Array

MAX_SCALE, MAX_ROTATION_DEG, MAX_BACKLASH_UM = 0.03, 1.0, 10.0
"""Tolerances: what lies surely beyond them contradicts the session's settings. At a step of 290 um
the first two are 9 and 5 um, which registration takes out."""

SIMILAR_SHARE = 0.1
"""Share of a displacement by which two may differ that are the same but for flipped axes."""

UNITS = (
    (1e-3, "millimetres"),
    (1e3, "nanometres"),
    (1e-6, "metres"),
    (1e-4, "centimetres"),
    (10.0, "tenths of a micrometre"),
    (1 / 25.4, "mils"),
    (1 / 25_400, "inches"),
)
"""um of the stage per um of the image where the positions are in this unit."""

UNIT_SHARE = 0.1
"""Share by which a scale may differ from a unit's: the pixel size may be a little wrong too."""

CALIBRATE_PIXELS = "run edge-mil calibrate pixel-size, and open a session under that calibration"
CALIBRATE_STAGE = (
    "run edge-mil calibrate stage with this session, and open a session under that calibration"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """What is wrong.

    Attributes:
        name: For programs, as "x-flipped".
        sentence: For people: what was met, what it means, what to do.
    """

    name: str
    sentence: str


def cause_of(moves: Sequence[Move], mpp: float) -> Cause | None:
    """Name what is wrong with a stage, from moves that one cause explains.

    Args:
        moves: At least one, each contradicting the stage or compatible with the same cause.
        mpp: The declared pixel size, um/px.

    Returns:
        None where no one cause explains them.
    """
    worst = max(moves, key=lambda move: move.error_um)
    both = _both(worst)
    for name, matrix, words in _AXES:
        if _explains(np.array(matrix, np.float64), moves):
            return Cause(name, f"{both}: {words}. Correct the declaration, or {CALIBRATE_PIXELS}.")
    found = _similarity(moves)
    if found is None:
        return None
    scale, angle, mirrored = found
    for unit, words in UNITS:
        if abs(math.log(scale / unit)) < UNIT_SHARE and not mirrored:
            return Cause(
                "units",
                f"{both}: the positions look like {words}. Send them in micrometres.",
            )
    if mirrored:
        return Cause(
            "mirrored",
            f"{both}: the camera is mirrored and turned by {angle:.0f} degrees. Declare it, or "
            f"{CALIBRATE_PIXELS}.",
        )
    turned = abs(angle) > MAX_ROTATION_DEG
    if abs(scale - 1) > MAX_SCALE:
        also = f", and the camera is turned by {angle:.1f} degrees" if turned else ""
        return Cause(
            "pixel-size",
            f"{both}: the pixel size was declared as {mpp:.3g} µm and would have to be "
            f"{mpp * scale:.3g}{also}; or the objective or the binning was changed. Correct it, or "
            f"{CALIBRATE_PIXELS}.",
        )
    if turned:
        return Cause(
            "rotation",
            f"{both}: the camera is turned by {angle:.1f} degrees against the stage. Declare it, "
            f"or {CALIBRATE_STAGE}.",
        )
    return None


def small_cause_of(fit: StageFit, mpp: float) -> Cause | None:
    """Name a fault that registration takes out and that is surely beyond its tolerance."""
    scale, rotation, stretch = fit.scale, fit.rotation_deg, fit.stretch
    if scale is not None and scale.beyond(1.0, MAX_SCALE):
        return Cause(
            "pixel-size",
            f"{fit.moves} overlaps say that the pixel size is {mpp * scale.value:.4g} ± "
            f"{mpp * scale.error:.1g} µm and {mpp:.4g} was declared: {CALIBRATE_STAGE}.",
        )
    if rotation is not None and rotation.beyond(0.0, MAX_ROTATION_DEG):
        return Cause(
            "rotation",
            f"{fit.moves} overlaps say that the camera is turned by {rotation.value:.1f} ± "
            f"{rotation.error:.1g} degrees against what was declared: {CALIBRATE_STAGE}.",
        )
    if stretch is not None and stretch.beyond(1.0, MAX_SCALE):
        return Cause(
            "stretch",
            f"{fit.moves} overlaps say that the stage's x is {abs(stretch.value - 1):.1%} "
            f"{'longer' if stretch.value > 1 else 'shorter'} than its y: one axis has the wrong "
            f"pitch. Correct it in the stage's settings, or {CALIBRATE_STAGE}.",
        )
    for axis, backlash in zip("XY", fit.backlash_um, strict=True):
        if backlash is not None and backlash.beyond(0.0, MAX_BACKLASH_UM):
            return Cause(
                "backlash",
                f"{fit.moves} overlaps say that {axis} has a backlash of {abs(backlash.value):.0f} "
                f"± {backlash.error:.1g} µm: where it arrives from the other side, the image lies "
                "elsewhere. Let the stage approach each position from one side (its anti-backlash "
                "setting), or scan all rows in one direction.",
            )
    return None


def late_cause(moves: Sequence[Move]) -> Cause | None:
    """Say whether positions are late by a field: each step is what the images showed before.

    Args:
        moves: Of each field against the one before it, in order, without gaps.
    """
    followed = wrong = 0
    worst: Move | None = None
    for before, move in itertools.pairwise(moves):
        if before.later != move.earlier:
            continue
        if not _near(move.stage_um, before.image_um):
            return None
        followed += 1
        if not _near(move.stage_um, move.image_um):
            wrong += 1
            worst = move if worst is None or move.error_um > worst.error_um else worst
    first = moves[0] if moves else None
    if first is not None and worst is None and not _near(first.stage_um, first.image_um):
        worst = first
    started = first is not None and not _near(first.stage_um, first.image_um)
    if worst is None or followed < 1 or wrong + started < 2:
        return None
    return Cause(
        "late",
        f"{_both(worst)}, which the stage says one field later: the positions are late by a field. "
        "Read the position after the exposure, or wait until the stage has settled.",
    )


def unexplained(moves: Sequence[Move]) -> Cause:
    """Name a stage that several fields contradict, each in another manner."""
    worst = max(moves, key=lambda move: move.error_um)
    return Cause(
        "stage",
        f"{_both(worst)}, and no one setting explains {len(moves)} such fields: is the stage "
        f"referenced, and had it settled? Else {CALIBRATE_PIXELS}.",
    )


NOTHING_FITS = (
    "Fields that should show the same places by their positions show nothing in common: the "
    "positions, their unit or the pixel size are wrong. Send positions in micrometres of each "
    f"field's centre, or {CALIBRATE_PIXELS}."
)

_AXES = (
    ("x-flipped", ((-1, 0), (0, 1)), "X is flipped"),
    ("y-flipped", ((1, 0), (0, -1)), "Y is flipped"),
    ("both-flipped", ((-1, 0), (0, -1)), "X and Y are flipped (the camera is turned by 180°)"),
    ("exchanged", ((0, 1), (1, 0)), "X and Y are exchanged"),
    (
        "turned",
        ((0, -1), (1, 0)),
        "the camera is turned by a quarter (X and Y are exchanged, and one is flipped)",
    ),
    (
        "turned",
        ((0, 1), (-1, 0)),
        "the camera is turned by a quarter (X and Y are exchanged, and one is flipped)",
    ),
    (
        "exchanged",
        ((0, -1), (-1, 0)),
        "X and Y are exchanged, and both are flipped",
    ),
)
"""(name, matrix from displacements by the images to those by the stage, words); the first that
explains all moves is the cause."""


def _both(move: Move) -> str:
    (sx, sy), (ix, iy) = move.stage_um, move.image_um
    return (
        f"Between fields {move.earlier} and {move.later} the stage says ({sx:+.4g}, {sy:+.4g}) µm "
        f"and the image ({ix:+.4g}, {iy:+.4g}) µm"
    )


def _tolerance(move: Move) -> float:
    return max(MAX_STAGE_ERROR_UM, SIMILAR_SHARE * math.hypot(*move.stage_um))


def _explains(matrix: Float64Array, moves: Sequence[Move]) -> bool:
    return all(
        float(np.abs(matrix @ move.image_um - move.stage_um).max()) <= _tolerance(move)
        for move in moves
    )


def _near(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= MAX_STAGE_ERROR_UM


def _similarity(moves: Sequence[Move]) -> tuple[float, float, bool] | None:
    """Return (scale, angle in degrees, mirrored) of the similarity that explains all moves.

    In complex numbers the stage's displacement is z times the image's, or z times its conjugate
    where the image is mirrored; z is their least-squares fit.
    """
    image = np.array([complex(*move.image_um) for move in moves])
    stage = np.array([complex(*move.stage_um) for move in moves])
    if float(np.abs(image).max()) < MIN_TRAVEL_UM:
        return None
    for mirrored, given in ((False, image), (True, image.conj())):
        z = complex(np.vdot(given, stage) / np.vdot(given, given).real)
        left = np.abs(stage - z * given)
        # Errors count against the images' displacement, in the stage's unit.
        allowed = np.maximum(MAX_STAGE_ERROR_UM, SIMILAR_SHARE * np.abs(image)) * max(abs(z), 1e-9)
        if abs(z) > 0 and bool((left <= allowed).all()):
            return abs(z), math.degrees(math.atan2(z.imag, z.real)), mirrored
    return None
