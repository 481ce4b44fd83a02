"""The gates that a field must pass before its cells are assembled: saturation, motion, focus."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.quality.blocking import blocking
from edge_mil.imaging.quality.cell_focus import CellFocus
from edge_mil.imaging.quality.echo import echo_strength
from edge_mil.imaging.quality.focus import (
    Contrast,
    focus_log_odds,
    log_odds,
    mean_sharpness,
    noise_corrected,
)
from edge_mil.imaging.quality.gate_settings import GateSettings
from edge_mil.imaging.quality.light import LightReading, brightest, read_light
from edge_mil.imaging.quality.motion import displacement_px, motion_features
from edge_mil.imaging.quality.saturation import clipped
from edge_mil.imaging.quality.spectrum import MIN_BLOCKS, field_spectrum, tissue_blocks
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Measure, UInt8Array, Verdict

__all__ = ["FrameGate", "GateResult", "GateSettings"]

STILL_WEIGHTS = (8.4, 0.8, 3.7, -5.1, -3.2, -1.9, -0.2, -9.4, -1.6)
STILL_OFFSET = 15.8
"""Of `motion_features`, fitted in the same way."""

MOVING_WEIGHTS = (6.8, 0.5, 0.2, 11.6, 4.5, -1.3, -12.2, 11.6, 1.6)
MOVING_OFFSET = -6.9
"""Of `motion_features`: moved rather than out of focus, for fields that are refused."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """Verdict of the gates on one field.

    Attributes:
        verdict: NOISY, MOVING, BLURRED, or None where the field passes or shows too little to
            judge.
        measures: Every number with its threshold.
        sharpness: Noise-corrected contrast of the tissue, grey levels squared; 0 without tissue.
            It compares images of one place, refused ones too.
        empty: Whether the field shows no tissue, or none with structure.
        judged: Whether there was enough tissue to judge motion and focus.
    """

    verdict: Verdict | None
    measures: tuple[Measure, ...]
    sharpness: float
    empty: bool
    judged: bool


class FrameGate:
    """The gates of one session, or of `edge-mil judge`; stateless, its thresholds are fixed."""

    def __init__(
        self, settings: GateSettings, tissue: TissueTest, *, calibrated: bool = False
    ) -> None:
        """Set what is the same for all fields.

        Args:
            settings: The thresholds.
            tissue: The tissue test, with the background.
            calibrated: The background was measured, so that brighter glass contradicts it too.
        """
        self._settings, self._tissue, self._calibrated = settings, tissue, calibrated

    @property
    def settings(self) -> GateSettings:
        return self._settings

    def saturation(self, raw: UInt8Array) -> Measure:
        """Return the share of clipped pixels of a field as the camera gave it (h, w, 3).

        Of a field that is too dark: the share of black pixels, or the brightest level.
        """
        shares = clipped(raw)
        if shares.black > self._settings.max_black_share:
            return Measure("black_share", shares.black, self._settings.max_black_share, False)
        least = self._settings.min_brightest_share * max(self._tissue.background)
        level = brightest(raw)
        if level < least:
            return Measure("brightest", level, least, False)
        limit = self._settings.max_clipped_share
        return Measure("clipped_share", shares.share, limit, shares.share <= limit)

    def blocking(self, raw: UInt8Array) -> Measure:
        """Return how strongly JPEG's blocks show in a field as the camera gave it (h, w, 3)."""
        strength, limit = blocking(raw, self._tissue), self._settings.max_blocking
        return Measure("blocking", strength, limit, strength <= limit)

    def light(self, pixels: UInt8Array) -> LightReading:
        """Compare the light of a field (h, w, 3), after the corrections, with the background."""
        limit = self._settings.max_dark_glass
        return read_light(pixels, self._tissue, limit, calibrated=self._calibrated)

    def cell_focus(
        self, pixels: UInt8Array, blurred: bool, grey: UInt8Array | None = None
    ) -> CellFocus:
        """Return what judges the cells of a field one by one.

        Args:
            pixels: RGB uint8 (h, w, 3), as `evaluate` got them.
            blurred: Whether `evaluate` calls the field as a whole BLURRED.
            grey: `pixels` in grey, uint8 (h, w), where it was computed already.
        """
        return CellFocus(
            pixels,
            self._tissue,
            min_focus=self._settings.min_focus,
            doubt=self._settings.cell_doubt,
            min_contrast=self._settings.min_contrast,
            blurred=blurred,
            grey=grey,
        )

    def evaluate(
        self,
        pixels: UInt8Array,
        previous_grey: UInt8Array | None = None,
        grey: UInt8Array | None = None,
    ) -> GateResult:
        """Judge motion and focus of a field.

        Args:
            pixels: RGB uint8 (h, w, 3), after flat field and white balance.
            previous_grey: The frame before at the same place, uint8 (h, w), where there is one:
                a large displacement between the two raises the threshold of stillness.
            grey: `pixels` in grey, uint8 (h, w), where it was computed already.
        """
        settings = self._settings
        blocks = tissue_blocks(pixels, self._tissue, grey)
        spectrum = field_spectrum(blocks)
        sharpness = mean_sharpness(blocks)
        displacement = math.nan
        if previous_grey is not None:
            if grey is None:
                grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
            displacement = displacement_px(grey, previous_grey)
        moved = [] if math.isnan(displacement) else [Measure("displacement_px", displacement)]
        if spectrum is None:
            return GateResult(None, tuple(moved), sharpness, empty=True, judged=False)
        noise = spectrum.white_noise
        structured = spectrum.contrast >= settings.min_contrast
        measures = [
            *moved,
            Measure("contrast", spectrum.contrast, settings.min_contrast, structured),
            Measure("sharpness", sharpness),
            Measure("noise", noise, settings.max_noise, noise <= settings.max_noise),
        ]
        if noise > settings.max_noise:
            return GateResult(Verdict.NOISY, tuple(measures), sharpness, empty=False, judged=True)
        if not structured or len(blocks) < MIN_BLOCKS:
            return GateResult(None, tuple(measures), sharpness, empty=not structured, judged=False)
        contrast, echo = noise_corrected(spectrum), echo_strength(spectrum)
        min_stillness = settings.min_stillness
        if displacement >= settings.moving_px:
            min_stillness += settings.doubt
        stillness = log_odds(motion_features(contrast, echo), STILL_WEIGHTS, STILL_OFFSET)
        focus = focus_log_odds(contrast)
        measures += [
            Measure("echo", echo),
            Measure("stillness", stillness, min_stillness, stillness >= min_stillness),
            Measure("focus", focus, settings.min_focus, focus >= settings.min_focus),
        ]
        verdict = None
        if stillness < min_stillness or focus < settings.min_focus:
            verdict = Verdict.MOVING if _looks_moved(contrast, echo) else Verdict.BLURRED
        return GateResult(verdict, tuple(measures), sharpness, empty=False, judged=True)


def _looks_moved(contrast: Contrast, echo: float) -> bool:
    """Say whether a field that is not sharp was moved: it lost contrast in one direction."""
    return log_odds(motion_features(contrast, echo), MOVING_WEIGHTS, MOVING_OFFSET) > 0.0
