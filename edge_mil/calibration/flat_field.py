"""Estimate the flat field from a few frames: of empty glass, or with cells and tissue on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.shading import MIN_LIGHT
from edge_mil.types import Float32Array, UInt8Array

WORK_PX = 256
"""Longest side at which light is estimated: shading is smooth, and noise averages out."""
MIN_FRAMES = 4
"""Half of them are left out in turn to choose the smoothing, and of two that disagree nobody knows
which one has the dust."""
SMOOTHNESS = (0.008, 0.016, 0.032, 0.064)
"""Widths of the smoothing that are tried, as shares of the longest side; the frames choose."""
FIRST_TOLERANCE, LAST_TOLERANCE = 0.2, 0.02
"""Difference that still counts as background, as a share of it, in the first and the last round."""
ROUNDS = 7
"""Of the fit, from the first tolerance to the last in even ratios."""
FOLDS = 4
"""Shares of the frames that are left out in turn to measure how well the flat field corrects."""
MOST_FRAMES = 24
"""More frames, evenly spread, would only take longer."""
START_QUANTILE = 0.6
"""Glass is brighter than what lies on it, so the search begins a little above the middle."""
MIN_LEVEL = 4.0
"""Grey levels; below that a pixel of 8 bits says nothing of the light."""
MIN_WEIGHT = 1e-3
"""Weight of all frames below which a pixel keeps its last estimate."""
NEIGHBOURHOOD = 0.06
"""Side of the neighbourhood that background is compared with, share of the longest side: larger
than most cells."""
NEAR = 0.03
"""Difference from the neighbourhood that background may have, as a share."""
ERODE_PX = 5
"""Width of the rim that is taken off background: halos of cells are nearly as bright as glass."""


@dataclass(frozen=True, slots=True, eq=False)
class FlatField:
    """An estimate of the light that all frames share.

    Attributes:
        flat: Light as a share of the brightest pixel of its channel: float32, (h', w', 3).
        level: Level of the brightest pixel, RGB 0 to 255, over the frames.
        smoothness: The smoothing that predicted left-out frames best, as a share of the side.
        variation_before: Coefficient of variation of the background, mean over the frames.
        variation_after: The same after correction by the flat field of the other frames.
        empty_share: Share of the frames' pixels that was taken for background.
    """

    flat: Float32Array
    level: tuple[float, ...]
    smoothness: float
    variation_before: float
    variation_after: float
    empty_share: float


def shrink(pixels: UInt8Array) -> Float32Array:
    """Return a frame as float32 (h', w', 3), area-averaged to at most 256 px a side."""
    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / WORK_PX)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    # In float32: an average of uint8 is rounded to whole levels, steps of 2 % in a dark corner.
    small = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32, copy=False)


def estimate_flat_field(
    frames: Sequence[Float32Array], dark: Float32Array | None = None
) -> FlatField:
    """Estimate the light that all frames share.

    A frame is light x its own brightness x what lies on the slide. The last differs from frame to
    frame and the first does not, so the light of a pixel is the level that most frames, and its
    neighbours, agree on: a robust mean of the logarithms with Welsch's weights, whose tolerance
    shrinks from 20 % to 2 % (cells, dust and tissue lose their weight), smoothed over the rest.

    Args:
        frames: At least 4, float32, (h', w', 3), from `shrink`, of different parts of the slide.
        dark: Dark frame, (h', w', 3).

    Raises:
        CalibrationError: There are too few frames, they differ in size, or they are too dark.

    Source:
        The model is that of BaSiC (Peng et al., Nat Commun 8:14836, 2017): one smooth field times
        one brightness for each frame, plus sparse content. Its solver needs JAX (basicpy) and
        hundreds of frames to tell a rank-1 field from tissue; here robust weights do that, as in
        graduated non-convexity (Blake & Zisserman 1987), and normalised convolution (Knutsson &
        Westin 1993) fills what they leave out.
    """
    # 1. Choose the smoothing that predicts frames best which were left out, at half resolution.
    spread = np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round()
    logs = _logs([frames[int(i)] for i in spread], dark)
    chosen, _ = min(
        ((width, _left_out(logs[:, ::2, ::2], width, 2)[1]) for width in SMOOTHNESS),
        key=lambda pair: pair[1],
    )
    # 2. Measure, on frames that were left out, how well the flat field corrects.
    before, after = _left_out(logs, chosen, FOLDS)
    # 3. Estimate the light from all frames, and divide it by its brightest pixel.
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
    """Return which pixels of a frame are background, uint8 (h', w'), 255 or 0.

    Taken from the frame as it is, so that no correction decides what it is measured on: a pixel
    is background when it and all pixels around it are within 3 % of the median of their
    neighbourhood. Smooth shading passes however steep; cells with their halos and dust do not.
    """
    grey = frame.mean(axis=2)
    side = max(3, round(max(grey.shape) * NEIGHBOURHOOD) | 1)  # odd, as medianBlur wants it
    levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    # Smoothed, or the median's whole levels would be steps of shading.
    median = cv2.GaussianBlur(cv2.medianBlur(levels, side).astype(np.float32), (0, 0), side / 6)
    near = (np.abs(grey / np.maximum(median, 1) - 1) < NEAR).astype(np.uint8)
    return cv2.erode(near * 255, np.ones((ERODE_PX, ERODE_PX), np.uint8)).astype(np.uint8)


def background_variation(frame: Float32Array, mask: UInt8Array) -> float:
    """Return standard deviation over mean of a frame's background, mean over its channels."""
    background = frame[mask > 0]
    if len(background) == 0:
        return 0.0
    return float((background.std(axis=0) / np.maximum(background.mean(axis=0), 1)).mean())


def _logs(frames: Sequence[Float32Array], dark: Float32Array | None) -> Float32Array:
    """Return the logarithms of the frames without the dark level, (n, h', w', 3)."""
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
    """Return the background's variation before and after correction, of frames left out of the fit.

    Args:
        logs: Logarithms of the frames, (n, h', w', 3).
        width: Smoothing, as a share of the longest side.
        folds: Number of groups; the frames of each are left out together, each frame once.
    """
    before, after = [], []
    for fold in range(min(folds, len(logs))):
        rows = np.arange(fold, len(logs), folds)
        light, _, _ = _fit(np.delete(logs, rows, axis=0), width)
        for log in logs[rows]:
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
    """Fit the light to frames by weighted means of their logarithms.

    Args:
        logs: Logarithms of the frames, (n, h', w', 3).
        width: Smoothing, as a share of the longest side.

    Returns:
        Logarithm of the light (h', w', 3), of each frame's brightness (n, 3), and the weight of
        each pixel of each frame, 0 to 1, (n, h', w').
    """
    sigma = width * max(logs.shape[1:3])
    # Start: frames of equal brightness, and the light a little above their middle.
    brightness: Float32Array = np.median(logs, axis=(1, 2)).astype(np.float32)
    even: Float32Array = logs - brightness[:, None, None]
    light = _smooth(np.quantile(even, START_QUANTILE, axis=0).astype(np.float32), sigma)
    weights: Float32Array = np.ones(logs.shape[:3], dtype=np.float32)
    for tolerance in np.geomspace(FIRST_TOLERANCE, LAST_TOLERANCE, ROUNDS):
        # Weight: how near a pixel is to the light, in all channels at once; in one channel alone
        # eosin, which absorbs green only, would be glass.
        residuals = even - light
        squares = np.einsum("nhwc,nhwc->nhw", residuals, residuals)
        weights[:] = np.exp(squares * np.float32(-0.5 / tolerance**2))
        # Brightness of each frame: the weighted mean of what is left.
        total = np.maximum(weights.sum(axis=(1, 2)), MIN_WEIGHT)[:, None]
        shift = (np.einsum("nhw,nhwc->nc", weights, residuals) / total).astype(np.float32)
        even = even - shift[:, None, None]
        brightness = brightness + shift
        # Light: the weighted mean over frames and neighbours; where tissue covers a pixel in every
        # frame, the last estimate stays.
        weight = _smooth(weights.sum(axis=0), sigma)[..., None]
        summed = _smooth(np.einsum("nhw,nhwc->hwc", weights, even), sigma)
        trust = weight / (weight + MIN_WEIGHT)
        mean = summed / np.maximum(weight, 1e-12)
        light = (light + trust * (mean - light)).astype(np.float32)
    return light, brightness, weights


def _smooth(array: Float32Array, sigma: float) -> Float32Array:
    smoothed = cv2.GaussianBlur(array, (0, 0), max(sigma, 0.5), borderType=cv2.BORDER_REFLECT)
    return smoothed.astype(np.float32, copy=False)
