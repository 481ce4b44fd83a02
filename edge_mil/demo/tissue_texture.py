"""Make the textures of painted tissue: noise of a chosen grain, fibres that follow a direction.

A number without a name was chosen by eye, so that the texture looks like H&E at 20x.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.types import Float32Array

FIBRE_TILE_PX = 1024
"""Fibres are made once on a tile that repeats without a seam: ten times faster than everywhere."""
FIBRE_LENGTH_PX = 41
FIBRE_WIDTH_PX = 1.6
DIRECTIONS = 4


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, grain_px: float
) -> Float32Array:
    """Return noise of mean 0 and standard deviation 1 whose spots are `grain_px` wide.

    Args:
        rng: Source of the numbers.
        height: Rows.
        width: Columns.
        grain_px: Width of a spot, pixels, at least 1.

    Returns:
        float32 (height, width).
    """
    rows, columns = max(4, round(height / grain_px)), max(4, round(width / grain_px))
    coarse = rng.standard_normal((rows + 2, columns + 2)).astype(np.float32)
    coarse /= max(float(coarse.std()), 1e-6)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return fine.astype(np.float32, copy=False)


def cloud_noise(rng: np.random.Generator, height: int, width: int, grain_px: float) -> Float32Array:
    """Return noise with detail at three sizes, `grain_px` the largest; float32 (height, width)."""
    total = smooth_noise(rng, height, width, grain_px)
    for octave in (2, 4):
        total += smooth_noise(rng, height, width, grain_px / octave) / np.float32(octave)
    return total


def fibres(rng: np.random.Generator, height: int, width: int) -> Float32Array:
    """Return wavy collagen: float32 (height, width), mean about 0, deviation about 1."""
    # The direction of the fibres changes slowly over the slide.
    turn = cloud_noise(rng, height // 8, width // 8, grain_px=70.0)
    angle = cv2.resize(turn, (width, height), interpolation=cv2.INTER_LINEAR) * 1.3
    grain = rng.standard_normal((FIBRE_TILE_PX, FIBRE_TILE_PX)).astype(np.float32)
    out = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    # Noise smeared along each of a few directions, mixed by how near the fibres' own one is.
    for k in range(DIRECTIONS):
        direction = np.pi * k / DIRECTIONS
        # A direction and its opposite are the same fibre, hence twice the angle.
        weight = np.maximum(np.cos(2.0 * (angle - direction)), 0.0) ** 2
        out += weight * _tiled(_smeared(grain, direction), height, width)
        weights += weight * weight
    out /= np.sqrt(np.maximum(weights, 1e-3))
    return out


def _smeared(grain: Float32Array, direction: float) -> Float32Array:
    """Return noise smeared along one direction, seamless, of deviation 1."""
    # An elongated Gaussian kernel, wrapped around the tile's edges.
    half = FIBRE_LENGTH_PX // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    along = x * np.cos(direction) + y * np.sin(direction)
    across = -x * np.sin(direction) + y * np.cos(direction)
    kernel = np.exp(-((along / (half * 0.55)) ** 2) - (across / FIBRE_WIDTH_PX) ** 2)
    padded = np.pad(grain, half, mode="wrap")
    smeared = cv2.filter2D(padded, cv2.CV_32F, kernel)[half:-half, half:-half]
    return np.asarray(smeared / smeared.std(), dtype=np.float32)


def _tiled(tile: Float32Array, height: int, width: int) -> Float32Array:
    rows, columns = -(-height // tile.shape[0]), -(-width // tile.shape[1])
    return np.tile(tile, (rows, columns))[:height, :width]
