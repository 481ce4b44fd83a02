"""The gates of a session: what a field passes before its cells are looked at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.correction.noise import NoiseReduction
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.quality.gate import FrameGate
from edge_mil.types import Frame, Measure, UInt8Array, Verdict

BEFORE_S = 0.5
"""A frame taken longer ago says nothing about what the slide did while this one was exposed."""


@dataclass(frozen=True, slots=True, eq=False)
class GatedFrame:
    """What the gates say of one field.

    Attributes:
        frame: The field after flat field, white balance and noise reduction.
        verdict: SATURATED, MOVING or BLURRED; None where it passed, or shows nothing to judge.
        measures: Every number with its threshold.
    """

    frame: Frame
    verdict: Verdict | None
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    time_s: float
    at_um: tuple[float | None, float | None]
    grey: UInt8Array


class FieldGate:
    """Corrects and judges each field; knows only the one before."""

    def __init__(
        self,
        gate: FrameGate,
        shading: ShadingCorrection | None,
        mpp: float,
        noise: NoiseReduction | None = None,
    ) -> None:
        """Begin before the first field.

        Args:
            gate: With the thresholds of the session.
            shading: Flat field, dark frame and white balance of the calibration; None: no change.
            mpp: Pixel size of the camera, um/px.
            noise: Takes the sensor's noise out of what was judged with it; None: nothing.
        """
        self._gate, self._shading, self._mpp = gate, shading, mpp
        self._noise = noise
        self._before: _Before | None = None

    def judge(self, frame: Frame) -> GatedFrame:
        """Judge a field as the camera gave it.

        Raises:
            FrameError: It has another size than the calibration's frames.
        """
        saturation = self._gate.saturation(frame.pixels)
        if not saturation.passed:
            self._before = None
            return GatedFrame(frame, Verdict.SATURATED, (saturation,))
        if self._shading is not None:
            frame = dataclasses.replace(frame, pixels=self._shading.apply(frame.pixels))
        frame = dataclasses.replace(frame, grey=_grey(frame))
        found = self._gate.evaluate(frame.pixels, self._just_before(frame), frame.grey)
        self._remember(frame)
        if self._noise is not None:
            frame = dataclasses.replace(frame, pixels=self._noise.apply(frame.pixels), grey=None)
        return GatedFrame(frame, found.verdict, (saturation, *found.measures))

    def _just_before(self, frame: Frame) -> UInt8Array | None:
        """Return the frame before, where it was taken just now and of the same place.

        A stage that says it went elsewhere meanwhile may have stopped for both.
        """
        before = self._before
        if before is None or not 0 < frame.capture_time_s - before.time_s <= BEFORE_S:
            return None
        here = frame.x_um, frame.y_um
        pairs = zip(here, before.at_um, strict=True)
        near = self._gate.settings.moving_px * self._mpp
        same = all(a is None or b is None or abs(a - b) < near for a, b in pairs)
        return before.grey if same and not frame.location_id else None

    def _remember(self, frame: Frame) -> None:
        self._before = None
        if frame.grey is not None:
            self._before = _Before(frame.capture_time_s, (frame.x_um, frame.y_um), frame.grey)


def _grey(frame: Frame) -> UInt8Array | None:
    """Return the field in grey, where the next field may be set against it."""
    if frame.location_id or frame.capture_time_s <= 0:
        return None
    return np.asarray(cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY), np.uint8)
