"""`reference.npz`: what the device checks its backend and its fields with, from calibration tiles.

Limits are cross-fitted: files are split into runs of neighbours by name (tiles of one slide lie
side by side), each run is measured against a reference of all the others.
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
"""Tiles side by side that stand for a field."""
COLOUR_FALSE_ALARM = 0.05
"""Share of tiles whose colours do not fit. Wide on purpose: a field counts as exchanged only where
it fits with the channels swapped, too."""
FIDELITY_TILES = 16
MAX_TILES = 1024
MIN_FIELDS = 8
MIN_TILES = 32
"""With fewer no limit is fitted, so the bundle has no out-of-distribution gate."""
AXES = 64
FOLDS = 5
SHRINKAGE = 0.1
BATCH = 16

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
    arrays["sharpness"] = statistics.median(gate.look(tile).sharpness for tile in tiles)
    seen = [tissue_colour(tile, tissue) for tile in tiles]
    shown = np.array([colour is not None for colour in seen])
    if int(shown.sum()) >= MIN_TILES:
        colours = fit_colours([c for c in seen if c is not None], folds[shown])
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
    held = np.empty(len(features))
    for fold in np.unique(folds):
        inside = folds == fold
        held[inside] = fit_distance(features[~inside]).of(features[inside])
    limit = max(_beyond(held, FALSE_ALARM), float(np.quantile(held, 1 - FALSE_ALARM)))
    runs = [run for run in _runs(folds) if len(run) >= FEW]
    middle = np.array([np.median(held[run]) for run in runs])
    # Of a handful of fields no such share follows: the tile's limit stands for them.
    field_limit = (
        min(_beyond(middle, FIELD_FALSE_ALARM), limit) if len(middle) >= MIN_FIELDS else limit
    )
    return Fitted(fit_distance(features), limit, field_limit)


def _runs(folds: Float64Array) -> list[Int64Array]:
    """Return the rows of each stand-in for a field: neighbours within one fold."""
    found: list[Int64Array] = []
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        found += [rows[at : at + FIELD_TILES] for at in range(0, len(rows), FIELD_TILES)]
    return found


def fit_distance(features: Float32Array) -> Distance:
    """Return the distance to features (n, d); n is NEIGHBOURS or more."""
    roots = rooted(features)
    mean = roots.mean(axis=0)
    # The axes by the products of rows: there are fewer tiles than numbers of a feature.
    centred = (roots - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    kept = np.argsort(-values)[: min(AXES, max(1, len(features) - NEIGHBOURS))]
    kept = kept[values[kept] > values.max() * 1e-9]
    axes = (centred.T @ vectors[:, kept]).T / np.sqrt(values[kept])[:, None]
    bank = centred @ axes.T
    return Distance(mean, axes.astype(np.float32), bank.astype(np.float32))


def fit_colours(seen: Sequence[TissueColour], folds: Float64Array) -> ColourReference:
    """Fit the colours of tiles and the limit that their own hold."""
    signs = np.stack([colour.signs for colour in seen])
    held = np.empty(len(signs))
    for fold in np.unique(folds):
        inside = folds == fold
        held[inside] = _colours(signs[~inside]).distance(signs[inside])
    found = _colours(signs)
    limit = float(np.quantile(held, 1 - COLOUR_FALSE_ALARM))
    ratio = statistics.median(colour.red_over_blue for colour in seen)
    return ColourReference(found.mean, found.precision, limit, ratio)


def _colours(signs: Float64Array) -> ColourReference:
    spread_of = np.cov(signs.T)
    alone = np.diag(np.diag(spread_of)) + 1e-6 * np.eye(len(spread_of))
    covariance = (1 - SHRINKAGE) * spread_of + SHRINKAGE * alone
    precision: Float64Array = np.linalg.inv(covariance).astype(np.float64)
    return ColourReference(signs.mean(axis=0), precision, 0.0, 1.0)


def _beyond(held: Float64Array, share: float) -> float:
    """Return the distance that a share exceeds, as a log-normal fits them.

    A share of a thousandth cannot be seen among a few hundred.
    """
    logs = np.log(np.maximum(held, 1e-6))
    tail = statistics.NormalDist(float(logs.mean()), float(logs.std()) or 1e-6)
    return float(np.exp(tail.inv_cdf(1 - share)))


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
