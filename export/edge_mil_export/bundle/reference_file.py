"""Make `reference.npz` of calibration tiles: what a device checks its backend and fields with.

Limits are cross-fitted: files are split into runs of neighbours by name (tiles of one slide lie
side by side), and each run is measured against a reference of all the others.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.imaging import TissueTest
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.pipeline.ood.channel_order import ColourReference, TissueColour, tissue_colour
from edge_mil.pipeline.ood.reference import FEW, NEIGHBOURS, Distance, rooted
from edge_mil.types import Float32Array, Float64Array, Int64Array, UInt8Array
from edge_mil_export.progress import progress
from edge_mil_export.tiles import FileTiles, spread

FALSE_ALARM, FIELD_FALSE_ALARM = 0.001, 0.005
"""Share of tiles beyond the tile's limit, and of fields whose median lies beyond the field's."""
FIELD_TILES = 9
"""Tiles side by side that count as one field."""
COLOUR_FALSE_ALARM = 0.05
"""Share of tiles whose colours do not fit. Wide on purpose: a field counts as exchanged only where
it fits with the channels swapped, too."""
FIDELITY_TILES = 16
"""Tiles, with their features, that verify a backend on the device."""
MAX_TILES = 1024
MIN_FIELDS = 8
"""With fewer the limit of a field is that of a tile."""
MIN_TILES = 32
"""With fewer no limit is fitted, so the bundle has no out-of-distribution gate."""
AXES = 64
"""Principal axes on which distances are measured."""
FOLDS = 5
SHRINKAGE = 0.1
"""Of the colours' covariance towards its diagonal, which keeps it invertible."""
BATCH = 16
"""Tiles of one run."""

SMALLEST, SMALLEST_EIGENVALUE = 1e-6, 1e-9
"""Keep logarithms and inverses finite; axes with less of the largest variance are noise."""

Extract = Callable[[UInt8Array], Float32Array]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A distance with its limits.

    Attributes:
        distance: From all tiles.
        limit: For a tile, at FALSE_ALARM.
        field_limit: For the median of a field's cells, at FIELD_FALSE_ALARM.
    """

    distance: Distance
    limit: float
    field_limit: float


def make_reference(files: Sequence[FileTiles], extract: Extract, tissue: TissueTest) -> bytes:
    """Return `reference.npz` of a calibration folder.

    Args:
        files: Its tiles, by name.
        extract: The FP32 extractor, tiles uint8 (n, h, w, 3) to features float32 (n, d).
        tissue: The bundle's tissue test.
    """
    tiles, folds = _chosen(files)
    starts = progress(range(0, len(tiles), BATCH), "reference", "batch")
    features = np.concatenate([extract(tiles[at : at + BATCH]) for at in starts])
    some = spread(len(tiles), FIDELITY_TILES)
    arrays: dict[str, object] = {"tiles": tiles[some], "features": features[some]}
    if len(tiles) >= MIN_TILES:
        fitted = fit(features, folds)
        arrays |= {
            "distance_mean": fitted.distance.mean,
            "distance_axes": fitted.distance.axes,
            "distance_bank": fitted.distance.bank,
            "distance_limit": fitted.limit,
            "distance_field_limit": fitted.field_limit,
            "distance_false_alarm": FALSE_ALARM,
            "distance_field_false_alarm": FIELD_FALSE_ALARM,
        }
    gate = FrameGate(GateSettings(), tissue)
    arrays["sharpness"] = statistics.median(gate.evaluate(tile).sharpness for tile in tiles)
    measured = [tissue_colour(tile, tissue) for tile in tiles]
    has_tissue = np.array([colour is not None for colour in measured])
    if int(has_tissue.sum()) >= MIN_TILES:
        colours = fit_colours([c for c in measured if c is not None], folds[has_tissue])
        arrays |= {
            "colour_mean": colours.mean,
            "colour_precision": colours.precision,
            "colour_limit": colours.limit,
            "colour_red_over_blue": colours.red_over_blue,
        }
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type] # takes names for options
    return out.getvalue()


def fit(features: Float32Array, folds: Float64Array) -> Fitted:
    """Fit the distance and its limits.

    Args:
        features: float32 (n, d).
        folds: Which run of neighbours each belongs to, (n,).
    """
    # The distance of each tile from a reference of the other runs.
    distances = np.empty(len(features))
    for fold in np.unique(folds):
        inside = folds == fold
        distances[inside] = fit_distance(features[~inside]).of(features[inside])
    limit = max(_exceeded_by(distances, FALSE_ALARM), _quantile(distances, FALSE_ALARM))
    # The median distance of each field; a handful of fields does not resolve a small share.
    fields = [rows for rows in _fields(folds) if len(rows) >= FEW]
    medians = np.array([np.median(distances[rows]) for rows in fields])
    field_limit = limit
    if len(medians) >= MIN_FIELDS:
        field_limit = min(_exceeded_by(medians, FIELD_FALSE_ALARM), limit)
    return Fitted(fit_distance(features), limit, field_limit)


def _fields(folds: Float64Array) -> list[Int64Array]:
    """Return the rows that count as each field: neighbours within one fold."""
    found: list[Int64Array] = []
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        found += [rows[at : at + FIELD_TILES] for at in range(0, len(rows), FIELD_TILES)]
    return found


def fit_distance(features: Float32Array) -> Distance:
    """Return the distance to features (n, d); n is NEIGHBOURS or more."""
    roots = rooted(features)
    mean = roots.mean(axis=0)
    # Principal axes by the products of rows, because there are fewer tiles than features.
    centred = (roots - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    kept = np.argsort(-values)[: min(AXES, max(1, len(features) - NEIGHBOURS))]
    kept = kept[values[kept] > values.max() * SMALLEST_EIGENVALUE]
    axes = (centred.T @ vectors[:, kept]).T / np.sqrt(values[kept])[:, None]
    bank = centred @ axes.T
    return Distance(mean, axes.astype(np.float32), bank.astype(np.float32))


def fit_colours(measured: Sequence[TissueColour], folds: Float64Array) -> ColourReference:
    """Fit the colours of tiles, and the limit that COLOUR_FALSE_ALARM of them exceed."""
    signs = np.stack([colour.signs for colour in measured])
    distances = np.empty(len(signs))
    for fold in np.unique(folds):
        inside = folds == fold
        distances[inside] = _colours(signs[~inside]).distance(signs[inside])
    found = _colours(signs)
    limit = _quantile(distances, COLOUR_FALSE_ALARM)
    ratio = statistics.median(colour.red_over_blue for colour in measured)
    return ColourReference(found.mean, found.precision, limit, ratio)


def _colours(signs: Float64Array) -> ColourReference:
    """Return mean and inverse covariance of colours, the latter shrunk towards its diagonal."""
    sample = np.cov(signs.T)
    diagonal = np.diag(np.diag(sample)) + SMALLEST * np.eye(len(sample))
    covariance = (1 - SHRINKAGE) * sample + SHRINKAGE * diagonal
    precision: Float64Array = np.linalg.inv(covariance).astype(np.float64)
    return ColourReference(signs.mean(axis=0), precision, 0.0, 1.0)


def _quantile(distances: Float64Array, share: float) -> float:
    """Return the distance that a share of those at hand exceeds."""
    return float(np.quantile(distances, 1 - share))


def _exceeded_by(distances: Float64Array, share: float) -> float:
    """Return the distance that a share exceeds under a log-normal distribution.

    A share of a thousandth cannot be seen among a few hundred distances.
    """
    logs = np.log(np.maximum(distances, SMALLEST))
    fitted = statistics.NormalDist(float(logs.mean()), float(logs.std()) or SMALLEST)
    return float(np.exp(fitted.inv_cdf(1 - share)))


def _chosen(files: Sequence[FileTiles]) -> tuple[UInt8Array, Float64Array]:
    """Return at most MAX_TILES tiles, of each file as many, and the fold of each."""
    share = max(1, MAX_TILES // len(files))
    parts = [file.tiles[spread(len(file.tiles), share)] for file in files]
    tiles = np.concatenate(parts)
    if len(files) >= FOLDS:
        numbers = np.repeat(np.arange(len(files)), [len(part) for part in parts])
        folds = numbers * FOLDS // len(files)
    else:
        folds = np.arange(len(tiles)) * FOLDS // len(tiles)
    kept = spread(len(tiles), MAX_TILES)
    return tiles[kept], folds[kept].astype(np.float64)
