"""Try every whole shift of two small images at once and return the likeliest."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import Float64Array

MIN_OVERLAP = 0.06
"""Share of the smaller image that must overlap; less cannot be told from chance."""

MIN_OVERLAP_GUESSED = 0.03
"""The same where the shift is known to a few pixels, so that chance has few shifts to fit."""

MIN_SIDE = 6
"""Rows and columns that must overlap, pixels of the coarsest scale."""

MAX_CANDIDATES = 8
"""Shifts that are examined at finer scales."""

MIN_SCORE_SHARE = 0.4
"""Share of the best candidate's score that another candidate needs."""

CANDIDATE_DISTANCE = 3
"""Distance of two candidates, pixels of the coarsest scale."""

MAX_CORRELATION = 0.99
"""Correlation at which Fisher's z is cut off; at 1 it is infinite."""

MIN_VARIANCE = 0.01
"""Variance of equalised pixels (1 where there is structure) below which an overlap is blank."""


def candidate_shifts(
    fixed: RegistrationPyramid,
    moving: RegistrationPyramid,
    guess: tuple[float, float] | None,
    reach: float,
) -> list[tuple[float, float]]:
    """Return the shifts that chance explains least.

    Args:
        fixed: The image that stays.
        moving: The image that is shifted.
        guess: Expected shift (x, y), camera pixels; None: any.
        reach: Largest error of the guess, camera pixels in x and in y.

    Returns:
        At most MAX_CANDIDATES shifts (x, y), camera pixels, the best first.

    Source:
        Fisher's z, the inverse hyperbolic tangent of a correlation, has a standard deviation of 1
        over the root of the number of samples (Fisher, Metron 1:3, 1921): the score is z in
        standard deviations, so that small and large overlaps compare.
    """
    a, b, factor = fixed.coarse, moving.coarse, fixed.factors[0]
    correlation, area, rows, columns = normalised_cross_correlation(fixed, moving)
    # Allowed shifts: enough overlap in rows, columns and area, and within reach of the guess.
    smaller = min(a.pixels.size, b.pixels.size)
    tall = np.minimum(rows + b.pixels.shape[0], a.pixels.shape[0]) - np.maximum(rows, 0)
    wide = np.minimum(columns + b.pixels.shape[1], a.pixels.shape[1]) - np.maximum(columns, 0)
    down, across = tall >= MIN_SIDE, wide >= MIN_SIDE
    if guess is not None:
        down &= np.abs(rows * factor - guess[1]) <= reach + factor
        across &= np.abs(columns * factor - guess[0]) <= reach + factor
    min_area = (MIN_OVERLAP if guess is None else MIN_OVERLAP_GUESSED) * smaller
    allowed = down[:, None] & across[None, :] & (area >= min_area)
    z = np.arctanh(np.clip(correlation, 0, MAX_CORRELATION))
    score = np.where(allowed, z * np.sqrt(area), 0).astype(np.float32)
    # The highest scores, each with its neighbourhood taken out before the next.
    shifts: list[tuple[float, float]] = []
    min_score = MIN_SCORE_SHARE * float(score.max())
    for _ in range(MAX_CANDIDATES):
        _, highest, _, (column, row) = cv2.minMaxLoc(score)
        if highest <= min_score:
            break
        shifts.append((float(columns[column] * factor), float(rows[row] * factor)))
        score[
            max(0, row - CANDIDATE_DISTANCE) : row + CANDIDATE_DISTANCE + 1,
            max(0, column - CANDIDATE_DISTANCE) : column + CANDIDATE_DISTANCE + 1,
        ] = 0
    return shifts


def normalised_cross_correlation(
    fixed: RegistrationPyramid, moving: RegistrationPyramid
) -> tuple[Float64Array, Float64Array, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the correlation coefficient of the overlap at every whole shift.

    Returns:
        The correlation, -1 to 1, and the number of overlapping pixels, both float64 (rows,
        columns); the shifts of the rows and of the columns, pixels of the coarsest scale.

    Source:
        Padfield, "Masked object registration in the Fourier domain" (IEEE Trans. Image Process.
        21:2706, 2012), for masks that are the images' own rectangles: then the masked sums are
        differences of integral images, and of the paper's transforms only that of the products is
        left. `skimage.registration.phase_cross_correlation` with masks computes the same for any
        masks, in twice the time; its results differ by rounding, and stored sessions would not be
        reproduced to the bit. `tests/imaging/registration/test_shift_search.py` compares the two.
    """
    a, b = fixed.coarse, moving.coarse
    (h, w), (h2, w2) = a.pixels.shape, b.pixels.shape
    rows, columns = np.arange(1 - h2, h), np.arange(1 - w2, w)
    # Sum of products at every shift, by the correlation theorem; the padding prevents wrapping.
    size = (cv2.getOptimalDFTSize(h + h2), cv2.getOptimalDFTSize(w + w2))
    products = cv2.idft(
        cv2.mulSpectrums(fixed.spectrum(size), moving.spectrum(size), 0, conjB=True),
        flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT,
    )
    cross = products[np.ix_(rows % size[0], columns % size[1])]
    # The overlap at every shift, in the pixels of each image.
    y0, y1 = np.maximum(rows, 0), np.minimum(rows + h2, h)
    x0, x1 = np.maximum(columns, 0), np.minimum(columns + w2, w)
    area = np.outer(y1 - y0, x1 - x0).astype(np.float64)
    in_fixed, in_moving = (y0, y1, x0, x1), (y0 - rows, y1 - rows, x0 - columns, x1 - columns)
    # Sum, and sum of squared deviations, of both images over the overlap.
    sum_a, sum_b = _box_sums(a.sums, in_fixed), _box_sums(b.sums, in_moving)
    squares_a = _box_sums(a.squares, in_fixed) - sum_a * sum_a / area
    squares_b = _box_sums(b.squares, in_moving) - sum_b * sum_b / area
    # A blank overlap correlates with anything, so a least variance is assumed.
    least = MIN_VARIANCE * area
    norm = np.sqrt(np.maximum(squares_a, least) * np.maximum(squares_b, least))
    return (cross - sum_a * sum_b / area) / norm, area, rows, columns


def _box_sums(
    integral: Float64Array, ends: tuple[npt.NDArray[np.intp], ...]
) -> npt.NDArray[np.float64]:
    """Return the sums over boxes y0 to y1 by x0 to x1, from an integral image."""
    y0, y1, x0, x1 = ends
    below, above = integral[y1], integral[y0]
    return (below[:, x1] - below[:, x0]) - (above[:, x1] - above[:, x0])
