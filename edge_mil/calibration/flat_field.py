"""The flat field out of a few frames: empty ones, or with cells and tissue on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.shading import MIN_LIGHT
from edge_mil.types import Float32Array, UInt8Array

WORK_PX = 256
"""Longest side that light is estimated at: shading is smooth, and noise averages out."""
MIN_FRAMES = 4
"""Two of them are left out to choose the smoothing, and of two nobody knows which has the dust."""
SMOOTHNESS = (0.008, 0.016, 0.032, 0.064)
"""Widths of the smoothing that are tried, as shares of the longest side; the frames choose."""
FIRST_TOLERANCE, LAST_TOLERANCE = 0.2, 0.02
"""What still counts as background, as a share of it: cells are let in first and then left out."""
ROUNDS = 7
FOLDS = 4
"""Shares of the frames that are left out in turn to measure what the flat field is worth."""
MOST_FRAMES = 24
"""More frames, evenly spread, would only take longer."""
START_QUANTILE = 0.6
"""Glass is brighter than what lies on it, so the search begins a little above the middle."""
MIN_LEVEL = 4.0
"""Grey levels; below that a pixel of 8 bits says nothing of the light."""
MIN_EVIDENCE = 1e-3
AROUND = 0.06
"""Side of a background's neighbourhood, as a share of the longest: larger than most cells."""
NEAR = 0.03
ERODE_PX = 5


@dataclass(frozen=True, slots=True, eq=False)
class FlatField:
    """An estimate of the light.

    Attributes:
        flat: Light as a share of the brightest place of its channel: float32, (h', w', 3).
        level: Level of the brightest place, RGB 0 to 255, over the frames.
        smoothness: The smoothing that predicted left-out frames best, as a share of the side.
        variation_before: Coefficient of variation of the background, mean over the frames.
        variation_after: The same after correction by the flat field of the other frames.
        empty_share: Share of the frames that was taken for background.
    """

    flat: Float32Array
    level: tuple[float, ...]
    smoothness: float
    variation_before: float
    variation_after: float
    empty_share: float


def shrink(pixels: UInt8Array) -> Float32Array:
    """Return a frame as the estimate works on it: area-averaged to at most 256 px a side."""
    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / WORK_PX)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    # In float32, or an average would be rounded to whole levels: steps of 2 % in a dark corner.
    small = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32, copy=False)


def estimate_flat_field(
    frames: Sequence[Float32Array], dark: Float32Array | None = None
) -> FlatField:
    """Estimate the light that all frames share.

    A frame is light x its own brightness x what lies on the slide. The last differs from frame to
    frame and the first does not, so each place's light is the level that most frames, and the
    neighbourhood, agree on: a location of the logarithms with Welsch's weights, whose tolerance
    shrinks from 20 % to 2 % (cells, dust and tissue fall out), smoothed over what is left.

    Args:
        frames: At least 4, float32, (h', w', 3), from `shrink`; of different places.
        dark: Dark frame, (h', w', 3).

    Raises:
        CalibrationError: There are too few frames, they differ in size, or they are too dark.

    Source:
        The model is that of BaSiC (Peng et al., Nat Commun 8:14836, 2017): one smooth field times
        one brightness for each frame, plus sparse content. Its solver needs JAX (basicpy) and
        hundreds of frames to tell a rank-1 field from tissue; here robust weights do that, as in
        graduated non-convexity (Blake & Zisserman 1987), and normalised convolution (Knutsson &
        Westin 1993) fills what they leave out. The smoothing is chosen by leaving frames out.
    """
    spread = np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round()
    logs = _logs([frames[int(i)] for i in spread], dark)
    chosen, _ = min(
        ((width, _left_out(logs[:, ::2, ::2], width, 2)[1]) for width in SMOOTHNESS),
        key=lambda pair: pair[1],
    )
    before, after = _left_out(logs, chosen, FOLDS)
    light, brightness, weights = _fit(logs, chosen)
    peak = light.max(axis=(0, 1))
    flat = np.exp(light - peak).astype(np.float32)
    level = np.exp(peak + np.median(brightness, axis=0))
    return FlatField(
        flat=np.clip(flat, MIN_LIGHT / 10, 1).astype(np.float32),
        level=tuple(float(x) for x in level),
        smoothness=chosen,
        variation_before=before,
        variation_after=after,
        empty_share=float((weights > 0.5).mean()),
    )


def background_mask(frame: Float32Array) -> UInt8Array:
    """Return where a frame shows nothing but light: uint8 (h', w'), 255 or 0.

    Judged on the frame as it is, so that no correction decides what it is measured on: a pixel
    is background when it is within 3 % of the median of its neighbourhood, and so is all around
    it. Smooth shading passes however steep; cells with their halos and dust do not.
    """
    grey = frame.mean(axis=2)
    around = max(3, round(max(grey.shape) * AROUND) | 1)
    levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    middle = cv2.GaussianBlur(cv2.medianBlur(levels, around).astype(np.float32), (0, 0), around / 6)
    near = (np.abs(grey / np.maximum(middle, 1) - 1) < NEAR).astype(np.uint8)
    return cv2.erode(near * 255, np.ones((ERODE_PX, ERODE_PX), np.uint8)).astype(np.uint8)


def background_variation(frame: Float32Array, mask: UInt8Array) -> float:
    """Return standard deviation over mean of a frame's background, mean over its channels."""
    chosen = frame[mask > 0]
    if len(chosen) == 0:
        return 0.0
    return float((chosen.std(axis=0) / np.maximum(chosen.mean(axis=0), 1)).mean())


def _logs(frames: Sequence[Float32Array], dark: Float32Array | None) -> Float32Array:
    if len(frames) < MIN_FRAMES:
        raise CalibrationError(
            f"There are {len(frames)} frames and a flat field needs {MIN_FRAMES} or more, of "
            "different places; empty glass is best."
        )
    if len({frame.shape for frame in frames}) != 1:
        raise CalibrationError(
            "The frames differ in size; use frames of one camera, binning and crop."
        )
    stack = np.stack(frames) - (0 if dark is None else dark)
    if float(np.median(stack)) < MIN_LEVEL:
        raise CalibrationError("The frames are nearly black; turn the lamp up and repeat.")
    logs: Float32Array = np.log(np.maximum(stack, MIN_LEVEL)).astype(np.float32)
    return logs


def _left_out(logs: Float32Array, width: float, folds: int) -> tuple[float, float]:
    """Return the background's variation, before and after, of frames not used for the fit.

    Args:
        logs: Logarithms of the frames, (n, h', w', 3).
        width: Smoothing, as a share of the longest side.
        folds: Every so-manieth frame is left out together, each once.
    """
    before, after = [], []
    for fold in range(min(folds, len(logs))):
        left = np.arange(fold, len(logs), folds)
        light, _, _ = _fit(np.delete(logs, left, axis=0), width)
        for log in logs[left]:
            frame = np.exp(log)
            mask = background_mask(frame)
            if mask.any():
                before.append(background_variation(frame, mask))
                after.append(background_variation(np.exp(log - light).astype(np.float32), mask))
    if not before:
        raise CalibrationError(
            "The frames show no even part at all; scan empty glass, or places with less on them."
        )
    return float(np.mean(before)), float(np.mean(after))


def _fit(logs: Float32Array, width: float) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return the logarithm of the light (h', w', 3), of each frame's brightness (n, 3), weights."""
    sigma = width * max(logs.shape[1:3])
    brightness: Float32Array = np.median(logs, axis=(1, 2)).astype(np.float32)
    even: Float32Array = logs - brightness[:, None, None]
    light = _smooth(np.quantile(even, START_QUANTILE, axis=0).astype(np.float32), sigma)
    weights: Float32Array = np.ones(logs.shape[:3], dtype=np.float32)
    for tolerance in np.geomspace(FIRST_TOLERANCE, LAST_TOLERANCE, ROUNDS):
        # A channel alone would call eosin glass, which takes green only.
        rest = even - light
        squares = np.einsum("nhwc,nhwc->nhw", rest, rest)
        weights[:] = np.exp(squares * np.float32(-0.5 / tolerance**2))
        total = np.maximum(weights.sum(axis=(1, 2)), MIN_EVIDENCE)[:, None]
        shift = (np.einsum("nhw,nhwc->nc", weights, rest) / total).astype(np.float32)
        even = even - shift[:, None, None]
        brightness = brightness + shift
        evidence = _smooth(weights.sum(axis=0), sigma)[..., None]
        summed = _smooth(np.einsum("nhw,nhwc->hwc", weights, even), sigma)
        # Where tissue covers a place in every frame, the last estimate stands.
        trust = evidence / (evidence + MIN_EVIDENCE)
        found = summed / np.maximum(evidence, 1e-12)
        light = (light + trust * (found - light)).astype(np.float32)
    return light, brightness, weights


def _smooth(picture: Float32Array, sigma: float) -> Float32Array:
    smoothed = cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.5), borderType=cv2.BORDER_REFLECT)
    return smoothed.astype(np.float32, copy=False)
