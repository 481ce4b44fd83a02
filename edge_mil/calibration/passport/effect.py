"""Measure what a camera does to a model: cells, attention, and the scores of bags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_mil.types import Float32Array, Int64Array, SlideScore, UInt8Array

BAGS = 200
"""Bags that are drawn for each size: the 95 % quantile then rests on ten."""
SIZES = (1, 4, 16, 64)
"""Cells of a bag. A field of a camera has 4 to 16; the larger ones stand for parts of a slide."""
MOST_OF_ALL = 0.5
"""A bag of more than this share of all cells is nearly the same bag each time."""
QUANTILE = 0.95
NORMAL_95 = 1.645
"""Standard deviations to the 95 % quantile of a normal distribution."""
LEAST_FIELDS = 5
"""Fields below which the tolerance factor grows without limit."""
SMALLEST = 1e-12
MIN_RANKED = 3


class TileScorer(Protocol):
    """A model, as the measurement of a camera needs it."""

    def features(self, tiles: UInt8Array) -> Float32Array:
        """Return features (n, d) of tiles (n, h, w, 3)."""

    def attention(self, features: Float32Array) -> Float32Array:
        """Return attention logits (n, k); k is 0 without attention."""

    def distance(self, features: Float32Array) -> Float32Array | None:
        """Return distances (n,) from the bundle's reference; None where it has none."""

    def scores(self, features: Float32Array, bags: Sequence[Int64Array]) -> list[SlideScore | None]:
        """Return the score of each bag of rows; None where it is smaller than the head needs."""


@dataclass(frozen=True, slots=True)
class BagShift:
    """How far the score of a bag of so many cells moves, camera against scan.

    Attributes:
        cells: Cells of a bag.
        bags: Bags that were drawn.
        mean: Mean of |shift|, in the unit of the score (a probability where there is one).
        quantile: Its 95 % quantile.
        bound: The stated 95 % bound, see `shift_bound`.
    """

    cells: int
    bags: int
    mean: float
    quantile: float
    bound: float


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a camera on a model, measured on fields that no correction was fitted to.

    Attributes:
        shifts: For each size of bag.
        cosine: Median over the cells of the cosine of camera and scan features, both centred.
        cosine_low: Its 5 % quantile.
        attention_rank: Spearman's correlation of the attention, mean over channels; None without
            attention.
        distance: Median distance from the bundle's reference; None without a reference.
        distance_scan: The same of the scan's cells.
    """

    shifts: tuple[BagShift, ...]
    cosine: float
    cosine_low: float
    attention_rank: float | None
    distance: float | None
    distance_scan: float | None

    @property
    def largest(self) -> BagShift:
        """The shift of the largest bags."""
        return self.shifts[-1]

    def bound_of(self, cells: int) -> float:
        """Return the bound for a bag of so many cells: that of the largest size up to it."""
        smaller = [shift for shift in self.shifts if shift.cells <= cells]
        return (smaller[-1] if smaller else self.shifts[0]).bound


class EffectMeasurement:
    """Compares the features of a camera's cells with those of the scan's, on the same bags."""

    def __init__(
        self, scorer: TileScorer, scan: Float32Array, fields: Sequence[int], seed: int = 0
    ) -> None:
        """Draw the bags and score them as the scan shows them.

        Args:
            scorer: The model.
            scan: Features of the scan's cells, (n, d).
            fields: Number of the field of each cell, (n,).
            seed: Of the bags.
        """
        self._scorer, self._scan = scorer, scan
        self._fields = np.asarray(fields, dtype=np.int64)
        self._centre = scan.mean(axis=0, dtype=np.float64)
        self._attention = scorer.attention(scan)
        chance = np.random.default_rng(seed)
        most = max(1, int(MOST_OF_ALL * len(scan)))
        sizes = [size for size in SIZES if size <= most]
        self._bags = {size: self._draw(size, chance) for size in sizes}
        self._scores = {size: scorer.scores(scan, bags) for size, bags in self._bags.items()}

    def of(self, camera: Float32Array) -> Effect:
        """Return the effect that shows in the camera's features of the same cells, (n, d)."""
        a, b = (x.astype(np.float64) - self._centre for x in (self._scan, camera))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = (a * b).sum(axis=1) / np.maximum(lengths, SMALLEST)
        # Two features that are both the mean feature agree.
        cosines = np.where(lengths > SMALLEST, cosines, 1.0)
        distance, distance_scan = (self._scorer.distance(x) for x in (camera, self._scan))
        shifts = []
        for size, bags in self._bags.items():
            moved = self._scorer.scores(camera, bags)
            spread = tolerance_factor(len(set(self._fields.tolist())))
            shift = _bag_shift(size, self._scores[size], moved, spread)
            if shift is not None:
                shifts.append(shift)
        return Effect(
            shifts=tuple(shifts),
            cosine=float(np.median(cosines)),
            cosine_low=float(np.quantile(cosines, 1 - QUANTILE)),
            attention_rank=rank_correlation(self._attention, self._scorer.attention(camera)),
            distance=None if distance is None else float(np.median(distance)),
            distance_scan=None if distance_scan is None else float(np.median(distance_scan)),
        )

    def _draw(self, size: int, chance: np.random.Generator) -> list[Int64Array]:
        """Draw bags of whole fields, as near to their size as the last field allows.

        Cells of one field are alike, and so are those of one slide: bags over all fields would
        average the differences between slides away.
        """
        rows_of = [np.flatnonzero(self._fields == f) for f in np.unique(self._fields)]
        bags = []
        for _ in range(BAGS):
            rows: list[int] = []
            for k in chance.permutation(len(rows_of)):
                rows += chance.permutation(rows_of[k]).tolist()
                if len(rows) >= size:
                    break
            bags.append(np.array(sorted(rows[:size]), dtype=np.int64))
        return bags


def score_shift(first: SlideScore, second: SlideScore) -> float:
    """Return how far a score moved: the largest change of a probability, else of the number."""
    if first.probabilities:
        return _largest(first.probabilities, second.probabilities)
    if first.value is not None and second.value is not None:
        return abs(first.value - second.value)
    if first.pooled:
        length = math.sqrt(sum(x * x for x in first.pooled))
        apart = math.dist(first.pooled, second.pooled)
        return apart / max(length, SMALLEST)
    return _largest(first.logits, second.logits)


def shift_bound(first: SlideScore, second: SlideScore) -> float:
    """Return how far the score of any bag moves whose logits move as much as these.

    A probability near 0 or 1 hides a shift that shows near 0.5, where another slide may lie. With
    d the largest change of the difference of two logits (of one logit where classes do not
    compete), no probability moves by more than tanh(d / 4), which it does from -d / 2 to d / 2.
    """
    found = score_shift(first, second)
    if not first.probabilities or not first.logits:
        return found
    change = [b - a for a, b in zip(first.logits, second.logits, strict=True)]
    competing = len(change) > 1 and abs(sum(first.probabilities) - 1) < 1e-6
    most = max(change) - min(change) if competing else max(map(abs, change))
    return max(found, math.tanh(most / 4))


def tolerance_factor(fields: int) -> float:
    """Return how many deviations above the mean 95 % lie, with 95 % confidence.

    Args:
        fields: Independent observations: the bags share their cells, the fields do not.

    Source:
        One-sided normal tolerance limits, approximated (Natrella, Experimental Statistics, NBS
        Handbook 91, 1963; NIST/SEMATECH e-Handbook, 7.2.6.3).
    """
    n, z = max(fields, LEAST_FIELDS), NORMAL_95
    a, b = 1 - z * z / (2 * (n - 1)), z * z - z * z / n
    return float((z + math.sqrt(z * z - a * b)) / a)


def rank_correlation(first: Float32Array, second: Float32Array) -> float | None:
    """Return Spearman's correlation of two (n, k), mean over k; None where there is none."""
    if not first.shape[1] or len(first) < MIN_RANKED:
        return None
    found = []
    for a, b in zip(first.T, second.T, strict=True):
        x, y = (values.argsort().argsort() - (len(values) - 1) / 2 for values in (a, b))
        found.append(float((x * y).sum() / (x * x).sum()))
    return float(np.mean(found))


def _bag_shift(
    size: int,
    before: Sequence[SlideScore | None],
    after: Sequence[SlideScore | None],
    spread: float,
) -> BagShift | None:
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    shifts = np.array([score_shift(a, b) for a, b in pairs])
    bounds = np.array([shift_bound(a, b) for a, b in pairs])
    # The larger of what was seen and of a normal tail: few fields show few of the worst bags.
    tail = float(bounds.mean() + spread * bounds.std())
    return BagShift(
        cells=size,
        bags=len(pairs),
        mean=float(shifts.mean()),
        quantile=float(np.quantile(shifts, QUANTILE)),
        bound=max(float(np.quantile(bounds, QUANTILE)), tail),
    )


def _largest(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))
