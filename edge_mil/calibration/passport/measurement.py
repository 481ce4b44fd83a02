"""Measure a camera passport: fit the correction, and its effect on fields held back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.calibration.passport.colour_fit import Pixels, fit_colour, fit_map, folds
from edge_mil.calibration.passport.effect import Effect, EffectMeasurement, TileScorer
from edge_mil.calibration.passport.pairs import PairedField, Pairs
from edge_mil.calibration.passport.passport import CameraPassport
from edge_mil.calibration.passport.sharpness import (
    FINE,
    LEAST_TRANSFER,
    Spectra,
    Transfer,
)
from edge_mil.imaging.correction.camera import NONE, CameraCorrection, ColourMap
from edge_mil.types import Float32Array, UInt8Array

MAX_SHIFT = 0.1
"""Shift that 95 % of the bags of a verified camera stay below, after mending: five times what INT8
may move a score by (`--max-shift`)."""
LARGE = 16
"""Cells of a bag from which on the shift decides: single cells are no slide."""
COLOUR_PX = 4
"""Pixels of a tile whose mean is one sample of colour: detail and small shifts do not matter."""
SAMPLES = 1500
"""Samples of colour of one field."""
EVEN_GAIN = 0.05
"""Gains within this of 1 are none: sharpness that was not changed is measured as well."""
LEAST_BETTER = 0.05
"""A step of the correction must take off this share of the error of the features."""
TOUCHED = 1e-3
"""Mean shift of cells below which a camera needs nothing."""


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """The bundle that a passport is measured with."""

    digest: str
    name: str
    precision: str


def measure_passport(
    pairs: Pairs,
    scorer: TileScorer,
    bundle: BundleIdentity,
    *,
    mpp: float,
    now: float,
    max_shift: float = MAX_SHIFT,
) -> CameraPassport:
    """Measure a passport.

    Args:
        pairs: From `pair_fields`.
        scorer: The bundle's model.
        bundle: Its identity.
        mpp: Pixel size of the camera, um/px.
        now: Seconds since the epoch.
        max_shift: Largest shift, in 95 % of the bags, of a camera that is verified.
    """
    fields = pairs.fields
    # 1. The form of the colour map, by the error on fields held back.
    colours = [_colour_samples(one) for one in fields]
    colour = fit_colour(colours)
    transfer = _transfer(fields, colour.map)
    # 2. Each correction, fitted without the field that it is applied to.
    numbers = [k for k, one in enumerate(fields) for _ in one.camera]
    scan = scorer.features(np.concatenate([one.scan for one in fields]))
    effect = EffectMeasurement(scorer, scan, numbers)
    camera = scorer.features(np.concatenate([one.camera for one in fields]))
    chosen, features = CameraCorrection(ColourMap()), camera
    for correction in _corrections(colour.map, transfer):
        held_back = scorer.features(_cross_fitted(fields, colours, correction))
        if _error(held_back, scan) < (1 - LEAST_BETTER) * _error(features, scan):
            chosen, features = correction, held_back
    # 3. What it does to the model, before and after.
    before, after = effect.of(camera), effect.of(features)
    if before.shifts[0].mean < TOUCHED:
        chosen, after = CameraCorrection(ColourMap()), before
    return CameraPassport(
        bundle_digest=bundle.digest,
        bundle_name=bundle.name,
        precision=bundle.precision,
        measured=now,
        mpp=mpp,
        scale=float(np.median([one.match.scale for one in fields])),
        fields=len(fields),
        cells=pairs.cells,
        correction=chosen,
        colour_errors=colour.errors,
        mtf=tuple(float(x) for x in transfer.mtf),
        noise=transfer.noise,
        before=before,
        after=after,
        reason=_reason(transfer, after, max_shift),
    )


def _corrections(colour: ColourMap, transfer: Transfer) -> list[CameraCorrection]:
    """Return the corrections to try, each with one step more than the one before."""
    gains = transfer.gains()
    uneven = max(abs(g - 1) for g in gains) > EVEN_GAIN
    found = [] if colour.kind == NONE else [CameraCorrection(colour)]
    return [*found, CameraCorrection(colour, gains)] if uneven else found


def _reason(transfer: Transfer, after: Effect, max_shift: float) -> str:
    """Return why the camera cannot be mended, "" where it can."""
    if transfer.at_fine < LEAST_TRANSFER:
        return (
            f"The camera carries {transfer.at_fine:.0%} of the scan's detail at {FINE:g} cycles "
            f"per pixel of the model and {LEAST_TRANSFER:.0%} are needed, so no filter brings it "
            "back; clean the optics, use an objective of a larger aperture, or a bundle made for "
            "coarser pixels."
        )
    moved = max(s.quantile for s in after.shifts if s.cells >= min(LARGE, after.largest.cells))
    if moved > max_shift:
        return (
            f"With the best correction one score in twenty still shifts by {moved:.3f} or more and "
            f"{max_shift:g} is allowed; use a camera nearer to the scanner, a bundle trained on "
            "such cameras, or allow more (--max-shift)."
        )
    return ""


def _colour_samples(field: PairedField) -> Pixels:
    """Return pixels of a field and of the scan, means of COLOUR_PX squares."""
    out = []
    for tiles in (field.camera, field.scan):
        height, width = tiles.shape[1] // COLOUR_PX, tiles.shape[2] // COLOUR_PX
        small = [cv2.resize(t, (width, height), interpolation=cv2.INTER_AREA) for t in tiles]
        samples = np.concatenate([t.reshape(-1, 3) for t in small])
        out.append(samples[:: max(1, len(samples) // SAMPLES)].astype(np.float64))
    return out[0], out[1]


def _transfer(fields: tuple[PairedField, ...], colour: ColourMap) -> Transfer:
    spectra = Spectra()
    for one in fields:
        for camera, scan in zip(one.camera, one.scan, strict=True):
            spectra.add(colour.apply(camera), scan.astype(np.float32))
    return spectra.transfer()


def _cross_fitted(
    fields: tuple[PairedField, ...], colours: list[Pixels], like: CameraCorrection
) -> UInt8Array:
    """Return all tiles corrected, each by a correction that was fitted to other fields."""
    corrected: dict[int, UInt8Array] = {}
    for held in folds(len(fields)):
        seen = [k for k in range(len(fields)) if k not in held]
        camera, scan = (np.concatenate([colours[k][side] for k in seen]) for side in (0, 1))
        colour = fit_map(like.colour.kind, camera, scan)
        gains: tuple[float, ...] = ()
        if like.gains:
            gains = _transfer(tuple(fields[k] for k in seen), colour).gains()
        correction = CameraCorrection(colour, gains)
        corrected |= {k: correction.apply(fields[k].camera) for k in held}
    return np.concatenate([corrected[k] for k in range(len(fields))])


def _error(features: Float32Array, scan: Float32Array) -> float:
    """Return the mean squared distance of features from the scan's."""
    return float(((features.astype(np.float64) - scan) ** 2).mean())
