"""Register two images by content: a shift to a part of a pixel, with how far it can be trusted."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.shift_search import candidate_shifts
from edge_mil.imaging.registration.template_match import match_scores, refined_shift
from edge_mil.types import Float32Array

MIN_RESPONSE = 0.5
SMALL_OVERLAP = 0.25
SMALL_OVERLAP_RESPONSE = 0.45
MIN_LEAD = 0.4
MIN_TEXTURE = 0.02
"""Needs of a reliable registration, see `Registration`. Measured on random fields of
`cmu1_small_region.svs` (512 x 384 px, noise of standard deviation 0 and 3): right shifts have a
response of 0.72 and a lead of 0.6 at least, at 6 % of overlap as at 60 %; wrong ones a response of
0.35 at most above 15 % of overlap, 0.74 below (a single edge fits another edge)."""

SAME_VIEW_PX = 2.5
SAME_VIEW_TEXTURE = 0.1
"""At no shift dust and the sensor's fixed pattern correlate, so more texture must correlate too."""

CONFIRM_PX = 1
CONFIRM_TEMPLATE_PX = 160
CONFIRM_RESPONSE = 0.8
"""A given shift is confirmed where a template of this size fits best within a pixel of it."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Shift of a moving image on a fixed one.

    Attributes:
        dx: Column of the moving image's left edge in the fixed one, camera pixels.
        dy: Row of its top edge.
        response: Normalised cross-correlation of the overlap, -1 to 1.
        overlap: Share of the smaller image that overlaps, 0 to 1.
        texture: Share of the overlap with texture in both images, 0 to 1.
        runner_up: Response of the best shift elsewhere, or 0.
    """

    dx: float
    dy: float
    response: float
    overlap: float
    texture: float
    runner_up: float

    @property
    def lead(self) -> float:
        """Response above that of the runner-up, as a share of what the runner-up lacks to 1.

        Along a straight edge all shifts fit alike: the response is high and the lead is 0.
        """
        return (self.response - self.runner_up) / max(1e-6, 1.0 - self.runner_up)

    @property
    def needed(self) -> float:
        """Response that is needed: the smaller the overlap, the more chance can reach."""
        missing = max(0.0, 1.0 - self.overlap / SMALL_OVERLAP)
        return MIN_RESPONSE + SMALL_OVERLAP_RESPONSE * missing

    @property
    def texture_needed(self) -> float:
        """Texture that is needed: more where nothing moved, because dust correlates there."""
        same_view = max(abs(self.dx), abs(self.dy)) <= SAME_VIEW_PX
        return SAME_VIEW_TEXTURE if same_view else MIN_TEXTURE

    @property
    def agrees(self) -> bool:
        """Whether a shift that was known before, or found close to it, fits."""
        return self.response >= self.needed and self.texture >= MIN_TEXTURE

    @property
    def reliable(self) -> bool:
        """Whether a shift that was searched for can be trusted."""
        return (
            self.response >= self.needed
            and self.lead >= MIN_LEAD
            and self.texture >= self.texture_needed
        )


def register_pair(
    fixed: RegistrationPyramid,
    moving: RegistrationPyramid,
    guess: tuple[float, float] | None = None,
    reach: float = math.inf,
) -> Registration | None:
    """Find the shift of `moving` on `fixed`, anywhere from full overlap down to a tenth.

    Every whole shift is tried at the coarsest scale, by the correlation of exactly the pixels that
    overlap, so that the size of the overlap does not matter and nothing wraps around. The best few
    are compared at twice that scale, and the best of them is refined down to the finest.

    Args:
        fixed: The image that stays.
        moving: The image that is shifted.
        guess: Expected shift (x, y), camera pixels; None: any.
        reach: Largest error of the guess, camera pixels in x and in y.

    Returns:
        The best fit, to be used only where it is `reliable`; None where there is nothing to fit.

    Source:
        See `shift_search.normalised_cross_correlation`. Plain phase correlation needs windows,
        which remove the overlap at the edges.
    """
    # Score the candidates at the second coarsest scale.
    scored: list[Registration] = []
    for dx, dy in candidate_shifts(fixed, moving, guess, reach):
        shift = _refine(fixed, moving, dx, dy, fixed.factors[:2])
        if shift is not None:
            found = score_shift(fixed, moving, *shift)
            if found is not None:
                scored.append(found)
    if not scored:
        return None
    # The best, and the best one that is not the same shift again.
    best = max(scored, key=lambda one: one.response)
    apart = fixed.factors[0]
    runner_up = max(
        (
            one.response
            for one in scored
            if max(abs(one.dx - best.dx), abs(one.dy - best.dy)) > apart
        ),
        default=0.0,
    )
    dx, dy = _refine(fixed, moving, best.dx, best.dy, fixed.factors[2:]) or (best.dx, best.dy)
    return dataclasses.replace(best, dx=dx, dy=dy, runner_up=max(0.0, runner_up))


def register_near(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> Registration | None:
    """Register two images whose shift is known to a few camera pixels.

    It takes a fifth of the time of `register_pair`.

    Returns:
        None where the images do not agree at that shift.
    """
    shift = _refine(fixed, moving, dx, dy, fixed.factors)
    found = None if shift is None else score_shift(fixed, moving, *shift)
    return found if found is not None and found.agrees else None


def confirm_shift(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> bool:
    """Say whether a given shift, camera pixels, is right to a pixel of the finest scale.

    It matches one small part, so that it costs next to nothing where the answer is yes.
    """
    factor, reach = fixed.factor, CONFIRM_PX + 1
    left, top = round(dx / factor), round(dy / factor)
    scores = match_scores(fixed.grey, moving.grey, left, top, reach, CONFIRM_TEMPLATE_PX)
    if scores is None:
        return False
    _, highest, _, at = cv2.minMaxLoc(scores)
    error = max(abs(at[0] - reach), abs(at[1] - reach))
    return highest >= CONFIRM_RESPONSE and error <= CONFIRM_PX


def score_shift(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> Registration | None:
    """Measure the response, overlap and texture of one shift, camera pixels.

    At the second coarsest scale: coarser ones cannot tell one nucleus from another, and finer
    ones lose correlation to noise and to a change of focus.

    Returns:
        None where the images do not overlap.
    """
    factor = fixed.factors[:2][-1]
    a, b = fixed.flat(factor), moving.flat(factor)
    slices = _overlap(a.shape, b.shape, round(dx / factor), round(dy / factor))
    if slices is None:
        return None
    first, second = a[slices[0]], b[slices[1]]
    response = _correlation(first, second)
    overlap = first.size / min(a.size, b.size)
    return Registration(dx, dy, response, overlap, _texture(fixed, moving, dx, dy), 0.0)


def overlap_texture(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> float:
    """Return the share of the overlap at a shift with texture in one image or in both, 0 to 1."""
    factor = fixed.factors[0]
    a, b = fixed.coarse.textured, moving.coarse.textured
    slices = _overlap(a.shape, b.shape, round(dx / factor), round(dy / factor))
    return 0.0 if slices is None else float((a[slices[0]] | b[slices[1]]).mean())


def _refine(
    fixed: RegistrationPyramid,
    moving: RegistrationPyramid,
    dx: float,
    dy: float,
    factors: list[int],
) -> tuple[float, float] | None:
    """Refine a shift, camera pixels, through finer and finer scales; None without overlap."""
    for factor in factors:
        # At fine scales `refined_shift` flattens one part; flattening the whole takes time.
        flat = factor in fixed.factors[:2]
        a = fixed.flat(factor) if flat else fixed.at(factor)
        b = moving.flat(factor) if flat else moving.at(factor)
        shift = refined_shift(a, b, dx / factor, dy / factor)
        if shift is None:
            return None
        dx, dy = shift[0] * factor, shift[1] * factor
    return dx, dy


def _overlap(
    a: tuple[int, ...], b: tuple[int, ...], dx: int, dy: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return the overlap at a whole shift as slices of both shapes; None without one."""
    y0, y1 = max(0, dy), min(a[0], dy + b[0])
    x0, x1 = max(0, dx), min(a[1], dx + b[1])
    if y1 <= y0 or x1 <= x0:
        return None
    return (slice(y0, y1), slice(x0, x1)), (
        slice(y0 - dy, y1 - dy),
        slice(x0 - dx, x1 - dx),
    )


def _correlation(a: Float32Array, b: Float32Array) -> float:
    """Return the correlation coefficient of two images of one size; 0 where one is flat."""
    score = cv2.matchTemplate(
        np.ascontiguousarray(a), np.ascontiguousarray(b), cv2.TM_CCOEFF_NORMED
    )
    value = float(score[0, 0])
    return value if math.isfinite(value) else 0.0


def _texture(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> float:
    """Return the share of the overlap with texture in both images."""
    factor = fixed.factors[0]
    a, b = fixed.coarse.textured, moving.coarse.textured
    slices = _overlap(a.shape, b.shape, round(dx / factor), round(dy / factor))
    return 0.0 if slices is None else float((a[slices[0]] & b[slices[1]]).mean())
