"""Paint a slide that looks like tissue stained with H&E, and know the truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.demo.nuclei import (
    ATYPICAL,
    EPITHELIAL,
    FIBROBLAST,
    LYMPHOCYTE,
    NucleusShelf,
)
from edge_mil.demo.tissue_texture import cloud_noise, fibres, smooth_noise
from edge_mil.types import Float32Array, UInt8Array

MPP = 0.5
"""Pixel size of what is painted, um/px: that of a 20x scan."""

MAP_STEP_PX = 8
"""Pixels of the slide per pixel of the coarse maps: where tissue, glands and foci are."""

GLASS = (243.0, 242.0, 244.0)
"""Empty glass under a white-balanced lamp, RGB."""

HAEMATOXYLIN = np.array([0.66, 0.72, 0.30], np.float32)
EOSIN = np.array([0.09, 0.80, 0.32], np.float32)
"""Optical density of the stains per channel, RGB: of the order that Ruifrok and Johnston (2001)
measured, eosin with less red."""


@dataclass(frozen=True, slots=True, eq=False)
class PaintedSlide:
    """A painted slide and the truth about it.

    Attributes:
        pixels: RGB uint8 (h, w, 3) at `MPP`.
        positive: Whether it holds foci of atypical nuclei.
        tissue: Where tissue is, bool, one pixel for `MAP_STEP_PX` x `MAP_STEP_PX` of the slide.
        foci: Where the foci are; as `tissue`, all False on a negative slide.
        lymphocytes: Where lymphocytes cluster: the confounder, on every slide.
        glands: Where glands are.
    """

    pixels: UInt8Array
    positive: bool
    tissue: np.ndarray
    foci: np.ndarray
    lymphocytes: np.ndarray
    glands: np.ndarray


@dataclass(frozen=True, slots=True)
class _Gland:
    x: float
    y: float
    long_px: float
    short_px: float
    angle: float


def paint_slide(
    seed: int, *, positive: bool, height_px: int = 2304, width_px: int = 3072
) -> PaintedSlide:
    """Paint a slide; the same arguments give the same pixels.

    Args:
        seed: Chooses everything: outline, stain, glands, nuclei, foci.
        positive: Whether to paint one to three foci of atypical nuclei.
        height_px: Rows, at least 512.
        width_px: Columns, at least 512.
    """
    if min(height_px, width_px) < 512:
        raise ValueError(f"A painted slide is at least 512 px wide, got {width_px}x{height_px}.")
    # The label is part of the seed: a positive slide is not its negative twin with foci.
    rng = np.random.default_rng([seed, int(positive), height_px, width_px])
    rows, columns = -(-height_px // MAP_STEP_PX), -(-width_px // MAP_STEP_PX)
    depth = _tissue_depth(rng, rows, columns)
    tissue = depth > 0.0
    foci = np.zeros((rows, columns), bool)
    if positive:
        foci = _spots(rng, depth, int(rng.integers(1, 4)), (11.0, 21.0))
    lymphocytes = _spots(rng, depth, int(rng.integers(2, 6)), (7.0, 17.0)) & ~foci
    glands = _place_glands(rng, tissue, foci | lymphocytes)
    gland_map = _gland_map(glands, rows, columns)
    canvas = _Canvas(rng, tissue, height_px, width_px)
    canvas.add_vacuoles(foci | gland_map)
    canvas.add_stroma_nuclei(foci | gland_map)
    for gland in glands:
        canvas.add_gland(gland)
    canvas.add_lymphocytes(lymphocytes)
    canvas.add_foci(foci)
    return PaintedSlide(canvas.develop(), positive, tissue, foci, lymphocytes, gland_map)


class _Canvas:
    """Two stains in the making, as optical densities; changed part by part, then developed."""

    def __init__(
        self, rng: np.random.Generator, tissue: np.ndarray, height: int, width: int
    ) -> None:
        self.rng, self.height, self.width = rng, height, width
        rounded = cv2.GaussianBlur(tissue.astype(np.float32), (0, 0), 1.3)
        soft = cv2.resize(rounded, (width, height), interpolation=cv2.INTER_CUBIC)
        ragged = soft + 0.12 * smooth_noise(rng, height, width, 5.0)
        self.cover = np.clip((ragged - 0.45) * 5.0, 0.0, 1.0).astype(np.float32)
        self.tissue = tissue
        clouds = cloud_noise(rng, height, width, 420.0)
        strands = fibres(rng, height, width)
        self.eosin = np.clip(0.37 + 0.07 * clouds + 0.075 * strands, 0.04, 1.2)
        # Clefts between bundles of collagen: bare glass shows through.
        self.eosin *= np.clip(1.0 - 0.9 * np.maximum(-strands - 1.5, 0.0), 0.12, 1.0)
        self.haze = 0.035 + 0.015 * np.clip(clouds, -1.5, 2.0)
        self.nuclei = np.zeros((height, width), np.float32)
        self.cover_again = np.zeros((height, width), np.float32)
        kinds = (FIBROBLAST, EPITHELIAL, LYMPHOCYTE, ATYPICAL)
        self.shelves = {kind: NucleusShelf(kind, rng) for kind in kinds}

    def add_stroma_nuclei(self, elsewhere: np.ndarray) -> None:
        """Scatter spindle cells through the stroma, and single lymphocytes."""
        free = self.tissue & ~elsewhere
        density = float(self.rng.uniform(0.9, 1.5))
        for x, y in self._points(free, density * 1e-3):
            self.shelves[FIBROBLAST].stamp(self.nuclei, x, y, self.rng)
        for x, y in self._points(free, 0.12e-3):
            self.shelves[LYMPHOCYTE].stamp(self.nuclei, x, y, self.rng)

    def add_vacuoles(self, elsewhere: np.ndarray) -> None:
        """Cut round holes with thin walls: fat cells, in groups."""
        near = _spots(self.rng, np.where(elsewhere, 0.0, self.tissue * 30.0), 2, (6.0, 14.0))
        holes = np.zeros((self.height, self.width), np.uint8)
        for x, y in self._points(near & ~elsewhere, 0.35e-3):
            radius = int(self.rng.uniform(14, 32))
            cv2.circle(holes, (round(x), round(y)), radius, 255, -1)
        soft = cv2.GaussianBlur(holes, (0, 0), 1.5).astype(np.float32) / 255.0
        self.eosin *= 1.0 - 0.93 * soft
        self.haze = self.haze * (1.0 - soft)

    def add_gland(self, gland: _Gland) -> None:
        """Draw one gland: an empty lumen, a ring of tall cells, their nuclei at the base."""
        rng = self.rng
        reach = int(gland.long_px * 1.35) + 4
        x0, x1 = max(int(gland.x) - reach, 0), min(int(gland.x) + reach, self.width)
        y0, y1 = max(int(gland.y) - reach, 0), min(int(gland.y) + reach, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        cos, sin = np.cos(gland.angle), np.sin(gland.angle)
        along = ((x - gland.x) * cos + (y - gland.y) * sin) / gland.long_px
        across = (-(x - gland.x) * sin + (y - gland.y) * cos) / gland.short_px
        waves = 0.05 * smooth_noise(rng, y1 - y0, x1 - x0, max(20.0, gland.short_px * 0.5))
        radius = np.hypot(along, across) + waves
        lumen = 1.0 - 30.0 / gland.short_px * rng.uniform(0.85, 1.1)
        inside = _step(1.0 - radius, 25.0)
        empty = _step(lumen - radius, 30.0) if lumen > 0.1 else np.zeros_like(radius)
        part = (slice(y0, y1), slice(x0, x1))
        grain = 0.03 * smooth_noise(rng, y1 - y0, x1 - x0, 4.0)
        self.eosin[part] = self.eosin[part] * (1.0 - inside) + inside * (0.27 + grain)
        self.haze[part] = self.haze[part] * (1.0 - inside) + inside * 0.13
        secretion = float(rng.choice([0.0, 0.0, 0.18]))
        self.eosin[part] = self.eosin[part] * (1.0 - empty) + empty * secretion
        self.haze[part] *= 1.0 - empty
        around = np.pi * (gland.long_px + gland.short_px)
        count = max(8, int(around / rng.uniform(11.0, 13.5)))
        for k in range(count):
            turn = 2.0 * np.pi * (k + rng.uniform(-0.25, 0.25)) / count
            ring = 1.0 - rng.uniform(7.0, 14.0) / gland.short_px
            u, v = gland.long_px * ring * np.cos(turn), gland.short_px * ring * np.sin(turn)
            at_x, at_y = gland.x + u * cos - v * sin, gland.y + u * sin + v * cos
            outward = np.arctan2(at_y - gland.y, at_x - gland.x)
            self.shelves[EPITHELIAL].stamp(self.nuclei, at_x, at_y, rng, float(outward))

    def add_lymphocytes(self, where: np.ndarray) -> None:
        """Pack lymphocytes: small, round and dark, but not atypical."""
        for x, y in self._packed(where, float(self.rng.uniform(9.5, 12.0))):
            self.shelves[LYMPHOCYTE].stamp(self.nuclei, x, y, self.rng)

    def add_foci(self, where: np.ndarray) -> None:
        """Crowd large irregular nuclei over bluish, disordered cytoplasm."""
        soft = cv2.resize(
            cv2.GaussianBlur(where.astype(np.float32), (0, 0), 1.2),
            (self.width, self.height),
            interpolation=cv2.INTER_LINEAR,
        )
        strength = float(self.rng.uniform(0.5, 0.9))
        self.eosin *= 1.0 - 0.3 * strength * soft
        self.haze = self.haze + 0.12 * strength * soft
        for x, y in self._packed(where, float(self.rng.uniform(19.0, 26.0))):
            self.shelves[ATYPICAL].stamp(self.nuclei, x, y, self.rng)
        for x, y in self._points(where, 0.3e-3):
            self.shelves[LYMPHOCYTE].stamp(self.nuclei, x, y, self.rng)

    def develop(self) -> UInt8Array:
        """Turn densities into the light that reaches the camera: RGB uint8 (h, w, 3)."""
        rng = self.rng
        blue = (self.nuclei + self.haze.astype(np.float32)) * self.cover
        blue *= float(rng.uniform(0.82, 1.15))
        pink = self.eosin.astype(np.float32) * (1.0 - 0.55 * np.clip(self.nuclei, 0.0, 1.0))
        pink *= self.cover * float(rng.uniform(0.85, 1.2))
        shading = 1.0 + 0.008 * smooth_noise(rng, self.height, self.width, 1500.0)
        noise = rng.standard_normal((512, 512)).astype(np.float32)
        rows, columns = -(-self.height // 512), -(-self.width // 512)
        grain = 1.6 * np.tile(noise, (rows, columns))[: self.height, : self.width]
        hue = rng.uniform(0.94, 1.06, size=(2, 3)).astype(np.float32)
        out = np.empty((self.height, self.width, 3), np.uint8)
        for c in range(3):
            density = blue * (HAEMATOXYLIN[c] * hue[0, c]) + pink * (EOSIN[c] * hue[1, c])
            light = GLASS[c] * shading * np.exp(-density)
            light = cv2.GaussianBlur(light, (0, 0), 0.8)
            out[:, :, c] = np.clip(light + grain + 0.5, 0.0, 255.0).astype(np.uint8)
        return out

    def _points(self, where: np.ndarray, per_px: float) -> list[tuple[float, float]]:
        """Return random places inside a coarse map, `per_px` of them for each slide pixel."""
        rows, columns = np.nonzero(where)
        count = self.rng.poisson(len(rows) * MAP_STEP_PX**2 * per_px)
        if not count:
            return []
        chosen = self.rng.integers(len(rows), size=count)
        jitter = self.rng.uniform(0.0, MAP_STEP_PX, size=(count, 2))
        x = columns[chosen] * MAP_STEP_PX + jitter[:, 0]
        y = rows[chosen] * MAP_STEP_PX + jitter[:, 1]
        return list(zip(x.tolist(), y.tolist(), strict=True))

    def _packed(self, where: np.ndarray, spacing_px: float) -> list[tuple[float, float]]:
        """Return places inside a coarse map that keep about `spacing_px` from each other."""
        y, x = np.mgrid[0 : self.height : spacing_px, 0 : self.width : spacing_px]
        x[1::2] += spacing_px / 2
        jitter = self.rng.normal(0.0, 0.24 * spacing_px, size=(2, *x.shape))
        x, y = (x + jitter[0]).ravel(), (y + jitter[1]).ravel()
        rows = np.floor(y / MAP_STEP_PX).astype(int)
        columns = np.floor(x / MAP_STEP_PX).astype(int)
        inside = (rows >= 0) & (rows < where.shape[0]) & (columns >= 0) & (columns < where.shape[1])
        inside[inside] = where[rows[inside], columns[inside]]
        # Packing is never perfect: some places stay empty.
        inside &= self.rng.random(inside.shape) < 0.88
        return list(zip(x[inside].tolist(), y[inside].tolist(), strict=True))


def _step(values: Float32Array, steepness: float) -> Float32Array:
    return np.asarray(np.clip(values * steepness + 0.5, 0.0, 1.0), dtype=np.float32)


def _tissue_depth(rng: np.random.Generator, rows: int, columns: int) -> Float32Array:
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


def _spots(
    rng: np.random.Generator, depth: Float32Array, count: int, radius: tuple[float, float]
) -> np.ndarray:
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


def _place_glands(rng: np.random.Generator, tissue: np.ndarray, taken: np.ndarray) -> list[_Gland]:
    """Return glands that keep clear of each other, of the edge and of what is taken."""
    blocked = (~tissue | taken).astype(np.uint8)
    free = cv2.distanceTransform(1 - blocked, cv2.DIST_L2, 3)
    wanted = int(tissue.sum() * MAP_STEP_PX**2 * rng.uniform(0.8, 2.2) * 1e-5)
    glands: list[_Gland] = []
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
            _Gland(
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


def _gland_map(glands: list[_Gland], rows: int, columns: int) -> np.ndarray:
    out = np.zeros((rows, columns), np.uint8)
    for gland in glands:
        centre = (gland.x / MAP_STEP_PX, gland.y / MAP_STEP_PX)
        size = (2.0 * gland.long_px / MAP_STEP_PX, 2.0 * gland.short_px / MAP_STEP_PX)
        cv2.ellipse(out, (centre, size, float(np.degrees(gland.angle))), 1, -1)
    return out.astype(bool)
