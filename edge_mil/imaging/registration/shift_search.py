"""Every whole shift of two small pictures at once: which of them are worth a closer look."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import Float64Array

MIN_OVERLAP = 0.06
"""Share of the smaller picture that must be shared; less cannot be told from chance."""

GUESSED_OVERLAP = 0.03
"""The same where the place is known to a few pixels, so that chance has few places to offer."""

MIN_SIDE = 6
"""Rows and columns that must be shared, pixels of the small picture."""

CANDIDATES = 8
"""Shifts that are looked at closely."""

UNLIKELY = 0.4
"""Share of the best candidate's score below which another is no candidate."""

APART = 3
"""Pixels of the small picture between two candidates."""

LEAST_SPREAD = 0.01
"""Variance of evened pixels (1 where there is structure) below which an overlap is blank."""


def likely_shifts(
    fixed: RegistrationPyramid,
    moving: RegistrationPyramid,
    guess: tuple[float, float] | None,
    reach: float,
) -> list[tuple[float, float]]:
    """Return the likeliest shifts, camera pixels, by how seldom chance would give them."""
    a, b, factor = fixed.coarse, moving.coarse, fixed.steps[0]
    correlation, area, rows, columns = _all_shifts(fixed, moving)
    smaller = min(a.pixels.size, b.pixels.size)
    tall = np.minimum(rows + b.pixels.shape[0], a.pixels.shape[0]) - np.maximum(rows, 0)
    wide = np.minimum(columns + b.pixels.shape[1], a.pixels.shape[1]) - np.maximum(columns, 0)
    down, across = tall >= MIN_SIDE, wide >= MIN_SIDE
    if guess is not None:
        down &= np.abs(rows * factor - guess[1]) <= reach + factor
        across &= np.abs(columns * factor - guess[0]) <= reach + factor
    least_shared = (MIN_OVERLAP if guess is None else GUESSED_OVERLAP) * smaller
    enough = down[:, None] & across[None, :] & (area >= least_shared)
    # Fisher's z: the deviation of a chance correlation falls with the root of the area.
    score = np.where(enough, np.arctanh(np.clip(correlation, 0, 0.99)) * np.sqrt(area), 0).astype(
        np.float32
    )
    found: list[tuple[float, float]] = []
    least = UNLIKELY * float(score.max())
    for _ in range(CANDIDATES):
        _, highest, _, (column, row) = cv2.minMaxLoc(score)
        if highest <= least:
            break
        found.append((float(columns[column] * factor), float(rows[row] * factor)))
        score[
            max(0, row - APART) : row + APART + 1, max(0, column - APART) : column + APART + 1
        ] = 0
    return found


def _all_shifts(
    fixed: RegistrationPyramid, moving: RegistrationPyramid
) -> tuple[Float64Array, Float64Array, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the correlation and the shared area of every shift, and the shifts themselves."""
    a, b = fixed.coarse, moving.coarse
    (h, w), (h2, w2) = a.pixels.shape, b.pixels.shape
    rows, columns = np.arange(1 - h2, h), np.arange(1 - w2, w)
    size = (cv2.getOptimalDFTSize(h + h2), cv2.getOptimalDFTSize(w + w2))
    products = cv2.idft(
        cv2.mulSpectrums(fixed.spectrum(size), moving.spectrum(size), 0, conjB=True),
        flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT,
    )
    cross = products[np.ix_(rows % size[0], columns % size[1])]
    y0, y1 = np.maximum(rows, 0), np.minimum(rows + h2, h)
    x0, x1 = np.maximum(columns, 0), np.minimum(columns + w2, w)
    area = np.outer(y1 - y0, x1 - x0).astype(np.float64)
    here, there = (y0, y1, x0, x1), (y0 - rows, y1 - rows, x0 - columns, x1 - columns)
    sum_a, sum_b = _boxes(a.sums, here), _boxes(b.sums, there)
    spread_a = _boxes(a.squares, here) - sum_a * sum_a / area
    spread_b = _boxes(b.squares, there) - sum_b * sum_b / area
    # What has next to no structure correlates with anything: it is given some.
    least = LEAST_SPREAD * area
    spread = np.sqrt(np.maximum(spread_a, least) * np.maximum(spread_b, least))
    return (cross - sum_a * sum_b / area) / spread, area, rows, columns


def _boxes(
    integral: Float64Array, ends: tuple[npt.NDArray[np.intp], ...]
) -> npt.NDArray[np.float64]:
    y0, y1, x0, x1 = ends
    below, above = integral[y1], integral[y0]
    return (below[:, x1] - below[:, x0]) - (above[:, x1] - above[:, x0])
