"""Fit the colour map from a camera to a scanner, and choose its form on fields held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.imaging.correction.camera import (
    CURVE_MATRIX,
    FULL,
    KINDS,
    NONE,
    QUADRATIC,
    ColourMap,
    colour_terms,
)
from edge_mil.types import Float64Array

FOLDS = 5
GAMMAS = tuple(float(g) for g in np.geomspace(0.4, 2.5, 15))
"""Exponents that are tried for the curve before the matrix; sRGB against a linear sensor is 2.2."""
TABLE = 33
"""Entries of a stored curve, as in usual tables of colour."""
KNOTS = 12
"""Points of the curve after the matrix, at equal shares of the pixels."""
RIDGE = 1e-4
"""Pull of the weights towards no change, in units of a pixel: colours that no pair showed keep a
sensible value."""
LEAST_GAIN = 0.02
"""A form must beat a simpler one by this share of its error, or the simpler one is taken."""
LEAST_LEVELS = 0.1
"""And by this many grey levels: less is below the rounding of 8 bits."""

Pixels = tuple[Float64Array, Float64Array]
"""Pixels of the camera and of the scan, each float64 (n, 3), 0 to 255."""


@dataclass(frozen=True, slots=True, eq=False)
class ColourFit:
    """A colour map and the error of each form on fields that it was not fitted to.

    Attributes:
        map: The map, fitted to all fields.
        errors: Form -> root mean square error on the fields held back, grey levels.
    """

    map: ColourMap
    errors: dict[str, float]


def fit_colour(fields: Sequence[Pixels]) -> ColourFit:
    """Fit each form of map with fields held back in turn, and the best form to all fields.

    Args:
        fields: Pixels of each field.
    """
    squares = dict.fromkeys(KINDS, 0.0)
    count = 0
    for held in folds(len(fields)):
        seen = [pixels for k, pixels in enumerate(fields) if k not in held]
        camera, scan = _joined([fields[k] for k in held])
        count += scan.size
        for kind in KINDS:
            mapped = fit_map(kind, *_joined(seen)).apply(camera[None].astype(np.float32))[0]
            squares[kind] += float(((mapped - scan) ** 2).sum())
    errors = {kind: float(np.sqrt(total / max(1, count))) for kind, total in squares.items()}
    return ColourFit(fit_map(_simplest(errors), *_joined(fields)), errors)


def fit_map(kind: str, camera: Float64Array, scan: Float64Array) -> ColourMap:
    """Fit one form of map.

    Args:
        kind: One of `camera.KINDS`.
        camera: float64 (n, 3), 0 to 255.
        scan: The same pixels of the scan.
    """
    if kind == NONE:
        return ColourMap()
    x, y = camera / FULL, scan / FULL
    if kind == QUADRATIC:
        return ColourMap(QUADRATIC, _numbers(_solved(colour_terms(x, QUADRATIC), y)))
    # 1. One exponent for the three channels, and the matrix that fits best after it.
    best, least = (1.0, np.eye(4)[:, :3]), np.inf
    for gamma in GAMMAS:
        terms = colour_terms(x**gamma, CURVE_MATRIX)
        weights = _solved(terms, y)
        error = float(((terms @ weights - y) ** 2).sum())
        if error < least:
            best, least = (gamma, weights), error
    gamma, weights = best
    # 2. A monotone curve for each channel takes up what is left.
    steps = np.linspace(0, 1, TABLE)
    mapped = np.clip(colour_terms(x**gamma, CURVE_MATRIX) @ weights, 0, 1)
    after = np.concatenate([_monotone(mapped[:, c], y[:, c], steps) for c in range(3)])
    before = np.tile(steps**gamma, 3)
    return ColourMap(CURVE_MATRIX, _numbers(weights), tuple(before), tuple(map(float, after)))


def folds(count: int) -> list[set[int]]:
    """Return the fields that are held back in turn: every fifth, so that neighbours are apart."""
    wanted = min(FOLDS, count)
    return [set(range(k, count, wanted)) for k in range(wanted)]


def _simplest(errors: dict[str, float]) -> str:
    """Return the form with the least error, a simpler one where that is as good."""
    chosen = NONE
    for kind in (CURVE_MATRIX, QUADRATIC):
        gain = errors[chosen] - errors[kind]
        if gain > max(LEAST_LEVELS, LEAST_GAIN * errors[chosen]):
            chosen = kind
    return chosen


def _joined(fields: Sequence[Pixels]) -> Pixels:
    return np.concatenate([a for a, _ in fields]), np.concatenate([b for _, b in fields])


def _solved(terms: Float64Array, wanted: Float64Array) -> Float64Array:
    """Return weights (terms, 3) by least squares, drawn slightly towards no change."""
    start = np.eye(terms.shape[1])[:, :3]
    normal = terms.T @ terms / len(terms) + RIDGE**2 * np.eye(terms.shape[1])
    change = np.linalg.solve(normal, terms.T @ (wanted - terms @ start) / len(terms))
    weights: Float64Array = start + change
    return weights


def _numbers(weights: Float64Array) -> tuple[float, ...]:
    return tuple(float(x) for x in weights.T.ravel())


def _monotone(x: Float64Array, y: Float64Array, steps: Float64Array) -> Float64Array:
    """Return the rising curve through the means of y in bins of x, at `steps`.

    Source:
        Pool adjacent violators (Barlow et al. 1972). It keeps the slope 1 beyond the ends.
    """
    # Means in bins of equal numbers of pixels.
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, KNOTS)
    points = [[float(x[b].mean()), float(y[b].mean()), float(len(b))] for b in bins if len(b)]
    # Join neighbours that fall.
    pooled: list[list[float]] = []
    for point in points:
        pooled.append(point)
        while len(pooled) > 1 and pooled[-2][1] > pooled[-1][1]:
            (x1, y1, n1), (x2, y2, n2) = pooled[-2:]
            n = n1 + n2
            pooled[-2:] = [[(x1 * n1 + x2 * n2) / n, (y1 * n1 + y2 * n2) / n, n]]
    at, value = np.array([p[0] for p in pooled]), np.array([p[1] for p in pooled])
    at = np.concatenate([[at[0] - 1], at, [at[-1] + 1]])
    value = np.concatenate([[value[0] - 1], value, [value[-1] + 1]])
    curve = np.interp(steps, at, value)
    rising: Float64Array = np.maximum.accumulate(np.clip(curve, 0, 1))
    return rising
