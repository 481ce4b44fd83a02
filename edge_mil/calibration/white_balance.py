"""Measure the colour of the lamp: the gains that make empty glass grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.calibration.flat_field import background_mask
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.types import Float32Array

DARKEST, BRIGHTEST = 64.0, 254.0
"""Grey levels between which the brightest channel of empty glass must lie."""
MOST_CLIPPED = 0.01
"""Share of pixels at level 255 above which the colour of the glass is not known."""
LARGEST_GAIN = 3.0
"""A lamp so coloured wants a filter, not a gain: the weak channel has no levels left."""
LEAST_EMPTY = 0.6
"""Share of a frame of empty glass that must be even."""
MOST_APART = 0.1
"""Relative difference of two frames of empty glass that is tissue, a pen or another exposure."""


@dataclass(frozen=True, slots=True)
class WhiteBalance:
    """The colour of empty glass, and what makes it grey.

    Attributes:
        gains: Gain of red, green and blue, at least 1; that of the brightest channel is 1.
        level: Level of empty glass after the gains, 0 to 255.
    """

    gains: tuple[float, float, float]
    level: float


def measure_white_balance(
    frames: Sequence[Float32Array], clipped: Sequence[float], shading: ShadingCorrection
) -> WhiteBalance:
    """Measure the gains on frames of empty glass.

    Args:
        frames: float32 (h', w', 3) each, from `flat_field.shrink`.
        clipped: Share of each frame's pixels that have a channel at level 255.
        shading: Flat field and dark frame that are taken out first.

    Raises:
        CalibrationError: The frames are too bright or too dark, or do not show empty glass.
    """
    if (worst := max(clipped)) > MOST_CLIPPED:
        raise CalibrationError(
            f"{worst:.0%} of the glass is at level 255, so its colour is unknown; expose "
            "shorter, so that empty glass is at about 240, and repeat."
        )
    # 1. The colour of each frame: the median of its even part, after the flat field.
    light = cv2.resize(shading.flat, frames[0].shape[1::-1], interpolation=cv2.INTER_LINEAR)
    dark = 0 if shading.dark is None else shading.dark
    colours = []
    for frame in frames:
        corrected = ((frame - dark) / light).astype(np.float32)
        even = background_mask(corrected) > 0
        if float(even.mean()) < LEAST_EMPTY:
            raise CalibrationError(
                f"Only {float(even.mean()):.0%} of a frame is even, so it is no empty glass; "
                "move off the tissue, measure the flat field first, and repeat."
            )
        colours.append(np.median(corrected[even], axis=0))
    # 2. The colour of the glass: the median of the frames, which must agree.
    colour = np.median(colours, axis=0)
    apart = float(np.abs(np.array(colours) / colour - 1).max())
    if apart > MOST_APART:
        raise CalibrationError(
            f"One frame differs from the others by {apart:.0%} in a channel, so not all of "
            "them show empty glass in the same light; take the odd one out and repeat."
        )
    # 3. The gains bring every channel up to the brightest.
    brightest = float(colour.max())
    red, green, blue = (float(brightest / max(x, 1.0)) for x in colour)
    if not DARKEST <= brightest <= BRIGHTEST or max(red, green, blue) > LARGEST_GAIN:
        levels = ", ".join(f"{x:.0f}" for x in colour)
        raise CalibrationError(
            f"Empty glass has the colour ({levels}); its brightest channel must lie between "
            f"{DARKEST:.0f} and {BRIGHTEST:.0f} and no other at less than a third of it. "
            "Correct the exposure or the camera's own white balance, and repeat."
        )
    return WhiteBalance((red, green, blue), brightest)
