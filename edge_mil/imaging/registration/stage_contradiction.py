"""Name what is wrong with a stage that the images contradict: axes, pixel size or rotation."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from edge_mil.errors import PixelSizeError, PositionError
from edge_mil.types import Float64Array

MAX_STAGE_ERROR_UM = 15.0
"""Largest error of a stage, um; a larger difference means that the image contradicts the stage."""

SAME_DIRECTION = 0.98
"""Least cosine of the angle between two displacements of one direction."""

SIMILAR_SHARE = 0.1
"""Share of a displacement by which two may differ that are the same but for flipped axes."""


def raise_contradiction(stage: Float64Array, image: Float64Array, mpp: float) -> NoReturn:
    """Raise an error that names what is wrong with the stage, and the command that mends it.

    Args:
        stage: Displacement between two fields by the stage, um (x, y).
        image: The same by the images.
        mpp: Pixel size, um/px.

    Raises:
        PositionError: An axis is flipped, the axes are exchanged, or the two do not fit at all.
        PixelSizeError: They have one direction and different lengths.
    """
    by_stage, by_image = float(np.hypot(*stage)), float(np.hypot(*image))
    tolerance = max(MAX_STAGE_ERROR_UM, SIMILAR_SHARE * by_stage)
    both = (
        f"The stage says ({stage[0]:+.0f}, {stage[1]:+.0f}) µm and the image "
        f"({image[0]:+.0f}, {image[1]:+.0f}) µm: "
    )
    numbers = {"stage_um": tuple(stage.round(1)), "image_um": tuple(image.round(1))}
    for signs, words in (
        ((-1, 1), "X is flipped"),
        ((1, -1), "Y is flipped"),
        ((-1, -1), "X and Y are flipped"),
    ):
        if np.abs(image - stage * signs).max() <= tolerance:
            raise PositionError(f"{both}{words}; run edge-mil calibrate pixel-size.", **numbers)
    if np.abs(np.abs(image) - np.abs(stage[::-1])).max() <= tolerance:
        raise PositionError(
            f"{both}X and Y are exchanged; run edge-mil calibrate pixel-size.", **numbers
        )
    cosine = float(stage @ image) / max(1e-9, by_stage * by_image)
    if cosine > SAME_DIRECTION and by_stage > MAX_STAGE_ERROR_UM:
        raise PixelSizeError(
            f"{both}the pixel size is given as {mpp:.3g} µm and would have to be "
            f"{mpp * by_stage / by_image:.3g}; run edge-mil calibrate pixel-size.",
            mpp=mpp,
            fits=mpp * by_stage / by_image,
        )
    raise PositionError(
        f"{both}they do not fit; is the camera turned, or the stage not referenced? Run edge-mil "
        "calibrate pixel-size.",
        **numbers,
    )
