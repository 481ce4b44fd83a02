"""Lay out a painted slide: where tissue, foci, lymphocytes and glands lie, on coarse maps.

Sizes are in pixels of the coarse maps unless their name says otherwise. A number without a name
was chosen by eye, so that the painting looks like tissue at 20x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.demo.tissue_texture import cloud_noise, smooth_noise
from edge_mil.types import Float32Array

BoolArray: TypeAlias = npt.NDArray[np.bool_]

MAP_STEP_PX = 8
"""Pixels of the slide per pixel of the coarse maps."""


@dataclass(frozen=True, slots=True)
class Gland:
    """An ellipse of tall cells, in pixels of the slide; `angle` of its long axis, radians."""

    x: float
    y: float
    long_px: float
    short_px: float
    angle: float


def tissue_depth(rng: np.random.Generator, rows: int, columns: int) -> Float32Array:
    """Return the distance to the tissue's edge in coarse pixels, 0 on glass; one or two pieces."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    field = np.full((rows, columns), -9.0, np.float32)
    pieces = int(rng.integers(1, 3))
    for k in range(pieces):
        centre_x = columns * ((k + 0.5) / pieces + rng.uniform(-0.04, 0.04))
        centre_y = rows * rng.uniform(0.44, 0.56)
        wide = columns / pieces * rng.uniform(0.36, 0.43)
        high = rows * rng.uniform(0.36, 0.43)
        field = np.maximum(field, 1.0 - np.hypot((x - centre_x) / wide, (y - centre_y) / high))
    field += 0.10 * cloud_noise(rng, rows, columns, min(rows, columns) / 3.0)
    field += 0.015 * smooth_noise(rng, rows, columns, 6.0)
    mask = (field > 0.0).astype(np.uint8)
    mask[:3], mask[-3:], mask[:, :3], mask[:, -3:] = 0, 0, 0, 0
    return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 3), dtype=np.float32)


def random_spots(
    rng: np.random.Generator, depth: Float32Array, count: int, radius: tuple[float, float]
) -> BoolArray:
    """Return ragged round regions well inside the tissue, in coarse pixels."""
    rows, columns = depth.shape
    out = np.zeros((rows, columns), bool)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    wobble = smooth_noise(rng, rows, columns, 9.0)
    inside = np.argwhere(depth > min(radius[0], 0.8 * float(depth.max())))
    for _ in range(count if len(inside) else 0):
        row, column = inside[int(rng.integers(len(inside)))]
        size = rng.uniform(*radius)
        stretch = rng.uniform(0.75, 1.3)
        distance = np.hypot((x - column) / stretch, (y - row) * stretch)
        out |= (distance + 0.18 * size * wobble < size) & (depth > 1.0)
    return out


def scatter_glands(rng: np.random.Generator, tissue: BoolArray, taken: BoolArray) -> list[Gland]:
    """Return glands that keep clear of each other, of the edge and of what is taken."""
    blocked = (~tissue | taken).astype(np.uint8)
    free = cv2.distanceTransform(1 - blocked, cv2.DIST_L2, 3)
    wanted = int(tissue.sum() * MAP_STEP_PX**2 * rng.uniform(0.8, 2.2) * 1e-5)
    glands: list[Gland] = []
    for _ in range(wanted * 6):
        if len(glands) >= wanted:
            break
        short = float(rng.uniform(36.0, 80.0))
        long = short * float(rng.uniform(1.0, 1.7))
        spots = np.argwhere(free * MAP_STEP_PX > long * 0.9)
        if not len(spots):
            continue
        row, column = spots[int(rng.integers(len(spots)))]
        glands.append(
            Gland(
                float((column + 0.5) * MAP_STEP_PX),
                float((row + 0.5) * MAP_STEP_PX),
                long,
                short,
                float(rng.uniform(0.0, np.pi)),
            )
        )
        cv2.circle(blocked, (int(column), int(row)), int(long * 1.1 / MAP_STEP_PX), 1, -1)
        free = cv2.distanceTransform(1 - blocked, cv2.DIST_L2, 3)
    return glands


def gland_map(glands: list[Gland], rows: int, columns: int) -> BoolArray:
    """Return which pixels of the coarse map glands cover."""
    out = np.zeros((rows, columns), np.uint8)
    for gland in glands:
        centre = (gland.x / MAP_STEP_PX, gland.y / MAP_STEP_PX)
        size = (2.0 * gland.long_px / MAP_STEP_PX, 2.0 * gland.short_px / MAP_STEP_PX)
        cv2.ellipse(out, (centre, size, float(np.degrees(gland.angle))), 1, -1)
    return out.astype(bool)
