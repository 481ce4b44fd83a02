"""The checks of stage and slide as people read them: state, sentence and numbers."""

from __future__ import annotations

import dataclasses

from edge_mil.session.geometry.continuity import Continuity
from edge_mil.session.geometry.stage_fit import Estimate, StageFit
from edge_mil.types import CheckState, SessionCheck

MIN_PROOF = 2
"""Fields that must agree along each axis before the stage counts as proven."""

NO_REVISIT = "No place was seen twice so far, so nothing shows that the slide is still the same."


def stage_check(axes: tuple[int, int]) -> SessionCheck:
    """Return the check of a stage that nothing contradicts."""
    missing = [name for name, count in zip("xy", axes, strict=True) if count < MIN_PROOF]
    if not missing:
        return SessionCheck(
            CheckState.AGREES, "Overlapping fields fit where the stage says, along x and y."
        )
    if len(missing) == 1:
        words = f"Fields overlap along {'y' if missing == ['x'] else 'x'} only so far"
    else:
        words = "No two fields overlap so far"
    return SessionCheck(
        CheckState.UNPROVEN,
        f"{words}, so pixel size and axes of the stage are unproven: let a few fields overlap "
        "by a third, along x and along y.",
    )


def slide_check(agreeing: int, continuity: Continuity) -> SessionCheck:
    """Return the check of a slide that nothing contradicts."""
    agrees = agreeing >= MIN_PROOF and continuity.boundary is None
    return SessionCheck(
        CheckState.AGREES if agrees else CheckState.UNPROVEN,
        "Places that were seen again look alike." if agrees else NO_REVISIT,
        pairs=agreeing,
    )


def with_numbers(check: SessionCheck, fit: StageFit) -> SessionCheck:
    """Return a check with the numbers of the fit."""
    found = [b for b in fit.backlash_um if b is not None]
    largest = max(found, key=lambda one: abs(one.value), default=None)
    return dataclasses.replace(
        check,
        pairs=fit.moves,
        scale=_numbers(fit.scale),
        rotation_deg=_numbers(fit.rotation_deg),
        backlash_um=_numbers(largest),
    )


def _numbers(estimate: Estimate | None) -> tuple[float, float] | None:
    return None if estimate is None else (estimate.value, estimate.error)
