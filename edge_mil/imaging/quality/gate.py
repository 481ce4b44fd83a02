"""The gates that a field passes before its cells are looked at: saturation, motion, focus."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from edge_mil.imaging.quality.focus import (
    Contrast,
    box_sharpness,
    contrast,
    focus_numbers,
    mean_sharpness,
)
from edge_mil.imaging.quality.gate_settings import GateSettings
from edge_mil.imaging.quality.motion import displacement_px, motion_numbers
from edge_mil.imaging.quality.saturation import clipped
from edge_mil.imaging.quality.spectrum import field_spectrum, tissue_blocks
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Measure, UInt8Array, Verdict

__all__ = ["FrameGate", "GateResult", "GateSettings"]

MIN_BLOCKS = 12
"""Tissue blocks from which a field is judged; one of 224 x 224 pixels has 16. Of one to eight
blocks at the soft margin of the tissue one sharp field in ten was refused."""

FOCUS_WEIGHTS = (12.4, 2.5, 4.4)
FOCUS_OFFSET = 7.2
"""Of `focus_numbers`: a logistic regression by `tests/benchmarks/gates/fit_weights.py`."""

STILL_WEIGHTS = (12.4, 2.9, 5.4, -10.8, -8.3, -1.2, 5.7)
STILL_OFFSET = 8.9
"""Of `motion_numbers`, by the same."""

MOVING_WEIGHTS = (5.2, 1.2, 1.9, 12.2, 8.1, -1.7, -12.0)
MOVING_OFFSET = -3.3
"""Of `motion_numbers`: moved rather than out of focus, once the field is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class GateResult:
    """What the gates say of one field, and how sharp each part of it is.

    Attributes:
        verdict: MOVING, BLURRED, or None where the field is good, or shows nothing to judge.
        measures: Every number with its threshold.
        sharpness: Noise-corrected contrast of the tissue, grey levels squared: comparable between
            pictures of one place, refused ones too. 0 where there is no tissue.
        empty: No tissue, or none with structure: the field is BLANK if anything.
        judged: Whether motion and focus could be judged; too little tissue says nothing.
    """

    verdict: Verdict | None
    measures: tuple[Measure, ...]
    sharpness: float
    empty: bool
    judged: bool
    _pixels: UInt8Array = field(repr=False)

    def of_box(self, x0: int, y0: int, x1: int, y1: int) -> float:
        """Return the sharpness of a part of the field: of pixels [x0, x1) by [y0, y1).

        It depends on the pixels of the part alone; an empty part has none (0).
        """
        part = self._pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        if 0 in part.shape:
            return 0.0
        return box_sharpness(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False))


class FrameGate:
    """The gates of one session, or of `edge-mil judge`: no state, thresholds fixed when made."""

    def __init__(self, settings: GateSettings, tissue: TissueTest) -> None:
        self._settings = settings
        self._tissue = tissue

    @property
    def settings(self) -> GateSettings:
        """The thresholds."""
        return self._settings

    def saturation(self, raw: UInt8Array) -> Measure:
        """Return the share of clipped pixels of the field as the camera gave it (h, w, 3)."""
        shares = clipped(raw)
        if shares.black > self._settings.max_black_share:
            return Measure("black_share", shares.black, self._settings.max_black_share, False)
        limit = self._settings.max_clipped_share
        return Measure("clipped_share", shares.share, limit, shares.share <= limit)

    def look(
        self,
        pixels: UInt8Array,
        previous_gray: UInt8Array | None = None,
        gray: UInt8Array | None = None,
    ) -> GateResult:
        """Judge motion and focus of a field.

        Args:
            pixels: RGB uint8 (h, w, 3), after flat field and white balance. It is kept for
                `GateResult.of_box`, so it must not be written to while that is in use.
            previous_gray: The frame before at the same place, grey uint8 (h, w), where there is
                one: the way between the two settles a doubt.
            gray: `pixels` in grey, where that has been made already.
        """
        settings = self._settings
        blocks = tissue_blocks(pixels, self._tissue, gray)
        spectrum = field_spectrum(blocks)
        sharpness = mean_sharpness(blocks.grey)
        way = math.nan
        if previous_gray is not None:
            if gray is None:
                gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
            way = displacement_px(gray, previous_gray)
        moved = [] if math.isnan(way) else [Measure("displacement_px", way)]
        if spectrum is None:
            return GateResult(None, tuple(moved), sharpness, True, False, pixels)
        structured = spectrum.deviation >= settings.min_contrast
        measures = [
            *moved,
            Measure("contrast", spectrum.deviation, settings.min_contrast, structured),
            Measure("sharpness", sharpness),
        ]
        if not structured or len(blocks) < MIN_BLOCKS:
            return GateResult(None, tuple(measures), sharpness, not structured, False, pixels)
        of = contrast(spectrum)
        least = settings.min_stillness + (settings.doubt if way >= settings.moving_px else 0.0)
        stillness, focus = stillness_of(of), focus_of(of)
        measures += [
            Measure("stillness", stillness, least, stillness >= least),
            Measure("focus", focus, settings.min_focus, focus >= settings.min_focus),
        ]
        verdict = None
        if stillness < least or focus < settings.min_focus:
            verdict = Verdict.MOVING if looks_moved(of) else Verdict.BLURRED
        return GateResult(verdict, tuple(measures), sharpness, False, True, pixels)


def focus_of(of: Contrast) -> float:
    """Return the log odds that a field is in focus, by its spectrum."""
    return _weigh(focus_numbers(of), FOCUS_WEIGHTS, FOCUS_OFFSET)


def stillness_of(of: Contrast) -> float:
    """Return the log odds that a field did not move while it was exposed."""
    return _weigh(motion_numbers(of), STILL_WEIGHTS, STILL_OFFSET)


def looks_moved(of: Contrast) -> bool:
    """Say whether a field that is not sharp lost its contrast in one direction."""
    return _weigh(motion_numbers(of), MOVING_WEIGHTS, MOVING_OFFSET) > 0.0


def _weigh(numbers: tuple[float, ...], weights: tuple[float, ...], offset: float) -> float:
    return offset + sum(w * n for w, n in zip(weights, numbers, strict=True))
