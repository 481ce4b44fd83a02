"""The stain that a bundle's tiles are brought to, measured on its calibration tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_mil.bundle import StainSpec, TissueSpec
from edge_mil.errors import CalibrationError as UnusableTilesError
from edge_mil.imaging.correction.stain import StainTransform, fit_profile
from edge_mil_export.errors import CalibrationError
from edge_mil_export.fidelity.bags import GENERATED, FidelitySet


def fit_stain(method: str, tiles: FidelitySet) -> tuple[StainSpec, FidelitySet]:
    """Measure the target of the stain normalisation, and bring the tiles at hand to it.

    Args:
        method: macenko or reinhard.
        tiles: Their calibration tiles are measured, else their bags; they have the stain that the
            model was trained on.

    Returns:
        The manifest's part, and the same tiles as the extractor will see them.

    Raises:
        CalibrationError: There are no real tiles, or they show too little tissue or one stain.
    """
    if tiles.source == GENERATED and tiles.calibration is None:
        raise CalibrationError(
            f"--stain {method} needs tiles stained as those that the model was trained on; name a "
            "folder of them with --calibration, or a slide with --fidelity-slide."
        )
    measured = tiles.calibration
    if measured is None:
        measured = np.concatenate([bag.tiles for bag in tiles.bags])
    try:
        profile = fit_profile(measured, TissueSpec().background)
        transform = StainTransform(method, profile, profile)
    except UnusableTilesError as error:
        raise CalibrationError(f"--stain {method} cannot be fitted: {error}") from error
    spec = StainSpec(
        method, profile.background, profile.mean, profile.deviation, profile.stains, profile.reach
    )
    return spec, replace(
        tiles,
        calibration=None if tiles.calibration is None else transform.apply(tiles.calibration),
        bags=tuple(
            bag if tiles.source == GENERATED else replace(bag, tiles=transform.apply(bag.tiles))
            for bag in tiles.bags
        ),
        read=tuple(replace(file, tiles=transform.apply(file.tiles)) for file in tiles.read),
    )
