"""Correct each frame, then measure whether it may be used: saturation, motion, focus."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.correction.noise import NoiseReduction
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.quality.cell_focus import BlurTest
from edge_mil.imaging.quality.gate import FrameGate
from edge_mil.imaging.quality.light import LIGHT_ON_DARK, NOTHING_READ, LightReading
from edge_mil.types import Frame, Measure, UInt8Array, Verdict

PREVIOUS_FRAME_S = 0.5
"""Longest time between two frames whose difference shows motion during an exposure, s."""

DARK = ("black_share", "brightest")
"""Measures of `FrameGate.saturation` that fail in a dark field."""

UNREADABLE = frozenset({Verdict.SATURATED, Verdict.WRONG_LIGHT, Verdict.NOISY})
"""Verdicts that say that the levels of a field mean nothing: it is not even tested for tissue."""


@dataclass(frozen=True, slots=True, eq=False)
class GatedFrame:
    """A corrected frame with the result of the quality gates.

    Attributes:
        frame: After flat field, white balance and noise reduction.
        verdict: SATURATED, WRONG_LIGHT, NOISY, MOVING or BLURRED; None where it passed, or shows
            too little tissue.
        measures: Every number with its threshold.
        light: What it says of the light; nothing where that is not checked.
        blurred: Whether the cell in a box of the frame is out of focus; None where all are refused.
        empty: Whether it shows nothing with structure, whatever its colour.
    """

    frame: Frame
    verdict: Verdict | None
    measures: tuple[Measure, ...]
    light: LightReading = NOTHING_READ
    blurred: BlurTest | None = None
    empty: bool = False

    @property
    def unreadable(self) -> bool:
        """Whether the tissue test means nothing in this field."""
        return self.verdict in UNREADABLE


@dataclass(frozen=True, slots=True, eq=False)
class _PreviousFrame:
    """What is kept of the frame before."""

    time_s: float
    position_um: tuple[float | None, float | None]
    grey: UInt8Array


class FieldGate:
    """Corrects and measures one frame after the other; remembers only the previous one."""

    def __init__(
        self,
        gate: FrameGate,
        shading: ShadingCorrection | None,
        mpp: float,
        noise: NoiseReduction | None = None,
        *,
        check_light: bool = False,
        insist_light: bool = False,
    ) -> None:
        """Start before the first frame.

        Args:
            gate: The quality gates with the session's thresholds.
            shading: Flat field, dark frame and white balance of the calibration; None: no change.
            mpp: Pixel size of the camera, µm/px.
            noise: Smooths the sensor's noise, after the gates measured the frame with it; None: no
                change.
            check_light: Refuse a field whose light contradicts the background.
            insist_light: Check it, and refuse nothing for it.
        """
        self._gate, self._shading, self._mpp = gate, shading, mpp
        self._noise, self._check_light, self._insist_light = noise, check_light, insist_light
        self._previous: _PreviousFrame | None = None

    def evaluate(self, frame: Frame) -> GatedFrame:
        """Correct a frame and measure its quality.

        Saturation is measured first: a correction would hide clipped pixels. Then the light: where
        it is not the expected one, the later numbers mean nothing.

        Raises:
            FrameError: It has another size than the calibration's frames.
        """
        saturation = self._gate.saturation(frame.pixels)
        self._previous, before = None, self._previous
        dark, raw = saturation.name in DARK, frame.pixels
        if not saturation.passed and not dark:
            return GatedFrame(frame, Verdict.SATURATED, (saturation,))
        if self._shading is not None:
            frame = dataclasses.replace(frame, pixels=self._shading.apply(frame.pixels))
        light = self._gate.light(frame.pixels) if self._check_light else NOTHING_READ
        named = {measure.name for measure in light.measures if not measure.passed}
        # A black field says nothing of the lamp, but structure on black does.
        if (
            not self._insist_light
            and named
            and (saturation.name != "black_share" or LIGHT_ON_DARK in named)
        ):
            return GatedFrame(frame, Verdict.WRONG_LIGHT, (saturation, *light.measures), light)
        if not saturation.passed:
            return GatedFrame(frame, Verdict.SATURATED, (saturation,))
        frame = dataclasses.replace(frame, grey=_grey(frame))
        blocks = self._gate.blocking(raw)
        if not blocks.passed:
            return GatedFrame(frame, Verdict.NOISY, (saturation, *light.measures, blocks), light)
        result = self._gate.evaluate(frame.pixels, self._comparable(frame, before), frame.grey)
        self._remember(frame)
        # Before the noise is smoothed: smoothing would change what is measured.
        focus = self._gate.cell_focus(frame.pixels, result.verdict is Verdict.BLURRED, frame.grey)
        if self._noise is not None:
            frame = dataclasses.replace(frame, pixels=self._noise.apply(frame.pixels), grey=None)
        measures = (saturation, *light.measures, blocks, *result.measures)
        return GatedFrame(frame, result.verdict, measures, light, focus.is_blurred, result.empty)

    def _comparable(self, frame: Frame, previous: _PreviousFrame | None) -> UInt8Array | None:
        """Return the previous frame in grey, where it was taken just now at the same position.

        A stage that reports another position meanwhile may have stopped for both exposures.
        """
        if previous is None:
            return None
        if not 0 < frame.capture_time_s - previous.time_s <= PREVIOUS_FRAME_S:
            return None
        pairs = zip((frame.x_um, frame.y_um), previous.position_um, strict=True)
        near_um = self._gate.settings.moving_px * self._mpp
        same = all(a is None or b is None or abs(a - b) < near_um for a, b in pairs)
        return previous.grey if same and not frame.location_id else None

    def _remember(self, frame: Frame) -> None:
        if frame.grey is not None:
            self._previous = _PreviousFrame(
                frame.capture_time_s, (frame.x_um, frame.y_um), frame.grey
            )


def _grey(frame: Frame) -> UInt8Array | None:
    """Return the frame in grey, where the next frame may be compared with it."""
    if frame.location_id or frame.capture_time_s <= 0:
        return None
    return np.asarray(cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY), np.uint8)
