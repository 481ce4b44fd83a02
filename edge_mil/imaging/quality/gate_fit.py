"""Fit the thresholds of the gates to one microscope, from a short scan of good fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from edge_mil.errors import CalibrationError
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float64Array, UInt8Array

MIN_FIELDS = 5
"""Fields with tissue that a fit needs."""

DEVIATIONS = 4.0
"""Robust deviations below the median at which a threshold lies: a scan may hold a few bad fields,
so its worst field says nothing."""

MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

MIN_DEVIATION = 1.0
"""Log odds: fields of one scan are more alike than those of a week."""

LOWEST, HIGHEST = -4.0, 4.0
"""Log odds between which a fitted threshold stays: from a scan of blurred fields blur must not
become acceptable, nor other tissue unacceptable from a scan of one sharp spot."""

HIGHEST_CLIPPED = 0.3
"""Largest threshold of the share of clipped pixels, whatever the scan."""

USUAL_QUANTILE, CLIPPED_FACTOR = 0.75, 2.0
"""The threshold of clipping is at least this factor of this quantile of the scan."""

BINS = 20
"""Bins of a histogram."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Distribution of one measure over the scan.

    Attributes:
        name: Name of the measure.
        edges: Ends of the bins, float64 (n + 1,).
        counts: Number of fields in each bin, n of them.
        threshold: The fitted threshold.
    """

    name: str
    edges: Float64Array
    counts: tuple[int, ...]
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedGates:
    """Fitted thresholds, with the distributions that they were fitted to.

    Attributes:
        settings: The thresholds.
        histograms: One for each measure.
        fields: Number of fields with tissue that were used.
    """

    settings: GateSettings
    histograms: tuple[Histogram, ...]
    fields: int


def fit_gate_settings(
    frames: Iterable[UInt8Array], tissue: TissueTest | None = None
) -> FittedGates:
    """Fit the thresholds to a short scan of the microscope.

    Args:
        frames: RGB uint8 (h, w, 3), in focus and at rest, after flat field and white balance;
            a few bad ones do no harm.
        tissue: Tissue test with the background of the calibration; None: the nominal one.

    Raises:
        CalibrationError: Too few of the frames show tissue.
    """
    settings = GateSettings()
    gate = FrameGate(settings, tissue or TissueTest())
    numbers: dict[str, list[float]] = {"clipped_share": [], "stillness": [], "focus": []}
    for pixels in frames:
        result = gate.evaluate(pixels)
        if not result.judged:
            continue
        for measure in (gate.saturation(pixels), *result.measures):
            if measure.name in numbers:
                numbers[measure.name].append(measure.value)
    fields = len(numbers["focus"])
    if fields < MIN_FIELDS:
        raise CalibrationError(
            f"Only {fields} of the frames show tissue and the gates need {MIN_FIELDS}; scan a few "
            "fields of tissue, in focus and at rest."
        )
    fitted = replace(
        settings,
        min_focus=_threshold(numbers["focus"]),
        min_stillness=_threshold(numbers["stillness"]),
        max_clipped_share=_clipped(numbers["clipped_share"], settings.max_clipped_share),
    )
    limits = {
        "clipped_share": fitted.max_clipped_share,
        "stillness": fitted.min_stillness,
        "focus": fitted.min_focus,
    }
    return FittedGates(
        fitted, tuple(_histogram(name, numbers[name], limits[name]) for name in numbers), fields
    )


def _threshold(values: list[float]) -> float:
    """Return the log odds below which a field is refused."""
    median = float(np.median(values))
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(np.asarray(values) - median)))
    lowest = median - DEVIATIONS * max(deviation, MIN_DEVIATION)
    return round(min(max(lowest, LOWEST), HIGHEST), 3)


def _clipped(values: list[float], default: float) -> float:
    """Return the share of clipped pixels above which a field is refused, never a stricter one."""
    usual = float(np.quantile(values, USUAL_QUANTILE)) if values else 0.0
    return round(min(max(default, CLIPPED_FACTOR * usual), HIGHEST_CLIPPED), 3)


def _histogram(name: str, values: list[float], threshold: float) -> Histogram:
    ends = min([*values, threshold]), max([*values, threshold])
    counts, edges = np.histogram(values, bins=BINS, range=ends if ends[1] > ends[0] else None)
    return Histogram(name, edges.astype(np.float64), tuple(int(n) for n in counts), threshold)
