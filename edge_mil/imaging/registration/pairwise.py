"""Where one picture lies on another: by content, to a part of a pixel, or not at all."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.shift_search import MIN_SIDE, likely_shifts
from edge_mil.types import Float32Array, UInt8Array

MIN_RESPONSE = 0.5
SMALL_OVERLAP = 0.25
SMALL_RESPONSE = 0.45
MIN_LEAD = 0.4
MIN_TEXTURE = 0.02
"""What a lock needs, see `Registration.sure`. Measured on random fields of `cmu1_small_region.svs`
(512 x 384 px, noise of sd 0 and 3): right shifts have a response of 0.72 and a lead of 0.6 at
least, at 6 % of overlap as at 60 %; wrong ones a response of 0.35 at most above 15 % of overlap,
0.74 below (a single edge fits another edge)."""

SAME_VIEW_PX = 2.5
SAME_VIEW_TEXTURE = 0.1
"""At no shift at all dust and the camera's own pattern agree; so much structure must, too."""

PATCH_PX = 256
"""Side of the part that is matched at the finer scales."""

THIN = 8
"""Every so many pixels are enough to find where the structure is."""

TOLD_PX = 1
TOLD_PATCH_PX = 160
TOLD_RESPONSE = 0.8
"""A told shift is right when a part of this size fits best within a pixel of it, and well."""

LIGHT_PX = 33
"""What is wider than this is light, not structure, at the finest scale."""

Grey: TypeAlias = "Float32Array | UInt8Array"


@dataclass(frozen=True, slots=True)
class Registration:
    """How one picture lies on another.

    Attributes:
        dx: Column of the moving picture's left edge in the fixed one, camera pixels.
        dy: Row of its top edge.
        response: Normalised cross-correlation of what both show, -1 to 1.
        overlap: Share of the smaller picture that both show, 0 to 1.
        texture: Share of what both show that has structure in both, 0 to 1.
        runner_up: Response of the best shift elsewhere, or -1.
    """

    dx: float
    dy: float
    response: float
    overlap: float
    texture: float
    runner_up: float

    @property
    def lead(self) -> float:
        """Return by how much it beats the best shift elsewhere, as a share of what is left to 1.

        Along a straight edge all shifts fit alike: the response is high, and says nothing.
        """
        return (self.response - self.runner_up) / max(1e-6, 1.0 - self.runner_up)

    @property
    def needed(self) -> float:
        """Return the response that it needs: the less is shared, the more chance can do."""
        return MIN_RESPONSE + SMALL_RESPONSE * max(0.0, 1.0 - self.overlap / SMALL_OVERLAP)

    @property
    def texture_needed(self) -> float:
        """Return the texture that it needs: where nothing moved, dust agrees, too."""
        still = max(abs(self.dx), abs(self.dy)) <= SAME_VIEW_PX
        return SAME_VIEW_TEXTURE if still else MIN_TEXTURE

    @property
    def agrees(self) -> bool:
        """Say whether a shift that was told, or found close to it, fits."""
        return self.response >= self.needed and self.texture >= MIN_TEXTURE

    @property
    def sure(self) -> bool:
        """Say whether to believe it."""
        return (
            self.response >= self.needed
            and self.lead >= MIN_LEAD
            and self.texture >= self.texture_needed
        )


def register(
    fixed: RegistrationPyramid,
    moving: RegistrationPyramid,
    guess: tuple[float, float] | None = None,
    reach: float = math.inf,
) -> Registration | None:
    """Find where `moving` lies on `fixed`, anywhere from full overlap down to a tenth.

    Every whole shift of two small pictures is tried at once: their correlation by DFT, divided by
    the deviation of exactly what each shift makes them share (so that the size of the overlap
    does not matter and nothing wraps around). The best few are judged at twice that scale by the
    normalised cross-correlation of their overlap, and the best of them is followed to the finest.

    Args:
        fixed: The picture that stays.
        moving: The picture that is placed.
        guess: Where its top left corner about lies on `fixed`, camera pixels (x, y).
        reach: How far from the guess it can be, camera pixels in x and in y.

    Returns:
        The best fit, to be believed only where it is `sure`; None where there is nothing to fit.

    Source:
        Padfield, Masked object registration in the Fourier domain, IEEE TIP 21(5), 2012. Plain
        phase correlation needs windows, which take away a tenth of overlap with the seams.
    """
    judged: list[Registration] = []
    for dx, dy in likely_shifts(fixed, moving, guess, reach):
        at = _follow(fixed, moving, dx, dy, fixed.steps[:2])
        if at is not None:
            one = measure(fixed, moving, *at)
            if one is not None:
                judged.append(one)
    if not judged:
        return None
    best = max(judged, key=lambda one: one.response)
    apart = fixed.steps[0]
    second = max(
        (
            one.response
            for one in judged
            if max(abs(one.dx - best.dx), abs(one.dy - best.dy)) > apart
        ),
        default=-1.0,
    )
    dx, dy = _follow(fixed, moving, best.dx, best.dy, fixed.steps[2:]) or (best.dx, best.dy)
    return dataclasses.replace(best, dx=dx, dy=dy, runner_up=max(0.0, second))


def confirm(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> Registration | None:
    """Register two pictures about whose shift there is little doubt, to a few pixels.

    A fifth of the time of `register`; None where they do not agree at that shift.
    """
    at = _follow(fixed, moving, dx, dy, fixed.steps)
    fit = None if at is None else measure(fixed, moving, *at)
    return fit if fit is not None and fit.agrees else None


def fits_as_told(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> bool:
    """Say whether a told shift, in camera pixels, is right to a pixel of the finest scale.

    It looks at one small part, so that asking costs next to nothing where the answer is yes.
    """
    factor, reach = fixed.factor, TOLD_PX + 1
    left, top = round(dx / factor), round(dy / factor)
    scores = _scores(fixed.grey, moving.grey, left, top, reach, TOLD_PATCH_PX)
    if scores is None:
        return False
    _, highest, _, at = cv2.minMaxLoc(scores)
    return highest >= TOLD_RESPONSE and max(abs(at[0] - reach), abs(at[1] - reach)) <= TOLD_PX


def measure(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> Registration | None:
    """Judge one shift, in camera pixels: what is shared, and how well it agrees.

    At the second coarsest scale: coarser ones cannot tell one nucleus from another, and finer
    ones punish noise and a change of focus.
    """
    factor = fixed.steps[:2][-1]
    a, b = fixed.flat(factor), moving.flat(factor)
    shared = _shared(a.shape, b.shape, round(dx / factor), round(dy / factor))
    if shared is None:
        return None
    first, second = a[shared[0]], b[shared[1]]
    response = _correlation(first, second)
    overlap = first.size / min(a.size, b.size)
    return Registration(dx, dy, response, overlap, _texture(fixed, moving, dx, dy), 0.0)


def _follow(
    fixed: RegistrationPyramid,
    moving: RegistrationPyramid,
    dx: float,
    dy: float,
    factors: list[int],
) -> tuple[float, float] | None:
    """Follow a shift of about two pixels' accuracy through finer and finer scales."""
    for factor in factors:
        # Of the fine scales only a part is matched: to flatten all of them takes time.
        flat = factor in fixed.steps[:2]
        a = fixed.flat(factor) if flat else fixed.at(factor)
        b = moving.flat(factor) if flat else moving.at(factor)
        at = _match(a, b, dx / factor, dy / factor)
        if at is None:
            return None
        dx, dy = at[0] * factor, at[1] * factor
    return dx, dy


def _match(a: Grey, b: Grey, dx: float, dy: float, reach: int = 2) -> tuple[float, float] | None:
    """Return the best shift within `reach` pixels, to a part of a pixel; None without overlap."""
    left, top = round(dx), round(dy)
    scores = _scores(a, b, left, top, reach, PATCH_PX)
    if scores is None:
        return None
    _, _, _, (column, row) = cv2.minMaxLoc(scores)
    fx = _top_of(scores[row], column)
    fy = _top_of(scores[:, column], row)
    return left + fx - reach, top + fy - reach


def _scores(
    a: Grey, b: Grey, left: int, top: int, reach: int, patch_px: int
) -> Float32Array | None:
    """Return how well a part of `b` fits on `a`, for each shift up to `reach` from the told one.

    Returns:
        float32 (2 reach + 1, 2 reach + 1); None where they share too little.
    """
    (h, w), (h2, w2) = a.shape, b.shape
    # The part of `b` that stays on `a` whichever shift is tried.
    y0, y1 = max(top, reach), min(top + h2, h - reach)
    x0, x1 = max(left, reach), min(left + w2, w - reach)
    if min(y1 - y0, x1 - x0) < max(2 * reach, MIN_SIDE):
        return None
    y0, y1, x0, x1 = _busiest(a, (y0, y1, x0, x1), patch_px)
    part = b[y0 - top : y1 - top, x0 - left : x1 - left]
    where = a[y0 - reach : y1 + reach, x0 - reach : x1 + reach]
    if a.dtype == np.uint8:
        part, where = _flattened(part), _flattened(where)
    return cv2.matchTemplate(where, part, cv2.TM_CCOEFF_NORMED).astype(np.float32, copy=False)


def _flattened(grey: Grey) -> Float32Array:
    return cv2.subtract(grey, cv2.blur(grey, (LIGHT_PX, LIGHT_PX)), dtype=cv2.CV_32F).astype(
        np.float32, copy=False
    )


def _busiest(a: Grey, box: tuple[int, int, int, int], most: int) -> tuple[int, int, int, int]:
    """Return the part of a box, at most `most` wide and high, with the most structure."""
    y0, y1, x0, x1 = box
    if y1 - y0 <= most and x1 - x0 <= most:
        return box
    tall, wide = min(most, y1 - y0), min(most, x1 - x0)
    thin = a[y0:y1:THIN, x0:x1:THIN].astype(np.float32)
    sums = cv2.integral(np.abs(thin - thin.mean()))
    rows, columns = max(1, tall // THIN), max(1, wide // THIN)
    bands = sums[rows:] - sums[:-rows]
    _, _, _, (column, row) = cv2.minMaxLoc(bands[:, columns:] - bands[:, :-columns])
    top, left = min(y0 + THIN * row, y1 - tall), min(x0 + THIN * column, x1 - wide)
    return top, top + tall, left, left + wide


def _top_of(scores: Float32Array, at: int) -> float:
    """Return the top of the parabola through a maximum and its neighbours."""
    if not 0 < at < len(scores) - 1:
        return float(at)
    before, here, after = (float(scores[at + k]) for k in (-1, 0, 1))
    bend = before - 2 * here + after
    return at + 0.5 * (before - after) / bend if bend < 0 else float(at)


def _shared(
    a: tuple[int, ...], b: tuple[int, ...], dx: int, dy: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return what both show at a whole shift, in each one's own pixels."""
    y0, y1 = max(0, dy), min(a[0], dy + b[0])
    x0, x1 = max(0, dx), min(a[1], dx + b[1])
    if y1 <= y0 or x1 <= x0:
        return None
    return (slice(y0, y1), slice(x0, x1)), (
        slice(y0 - dy, y1 - dy),
        slice(x0 - dx, x1 - dx),
    )


def _correlation(a: Float32Array, b: Float32Array) -> float:
    score = cv2.matchTemplate(
        np.ascontiguousarray(a), np.ascontiguousarray(b), cv2.TM_CCOEFF_NORMED
    )
    value = float(score[0, 0])
    return value if math.isfinite(value) else 0.0


def _texture(
    fixed: RegistrationPyramid, moving: RegistrationPyramid, dx: float, dy: float
) -> float:
    factor = fixed.steps[0]
    a, b = fixed.coarse.textured, moving.coarse.textured
    shared = _shared(a.shape, b.shape, round(dx / factor), round(dy / factor))
    return 0.0 if shared is None else float((a[shared[0]] & b[shared[1]]).mean())
