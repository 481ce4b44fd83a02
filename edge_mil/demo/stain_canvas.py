"""Paint nuclei and fibres as the optical densities of two stains, and develop them to an image.

Sizes are in pixels of the slide. A number without a name was chosen by eye, so that the painting
looks like tissue at 20x.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_mil.demo.nuclei import ATYPICAL, EPITHELIAL, FIBROBLAST, LYMPHOCYTE, NucleusSprites
from edge_mil.demo.slide_layout import MAP_STEP_PX, BoolArray, Gland, random_spots
from edge_mil.demo.tissue_texture import cloud_noise, fibres, smooth_noise
from edge_mil.types import Float32Array, UInt8Array

GLASS = (243.0, 242.0, 244.0)
"""Empty glass under a white-balanced lamp, RGB."""

HAEMATOXYLIN = np.array([0.66, 0.72, 0.30], np.float32)
EOSIN = np.array([0.09, 0.80, 0.32], np.float32)
"""Optical density of the stains per channel, RGB: of the order that Ruifrok and Johnston (2001)
measured, eosin with less red."""

GRAIN_PX = 512
"""Side of the square of sensor noise that repeats over the image."""


class StainCanvas:
    """The optical densities of two stains; structures are added one by one, then developed."""

    def __init__(
        self, rng: np.random.Generator, tissue: BoolArray, height: int, width: int
    ) -> None:
        """Begin with stroma: fibres under a ragged outline.

        Args:
            rng: Source of the numbers.
            tissue: Where tissue is, a coarse map.
            height: Rows of the slide.
            width: Columns of the slide.
        """
        self.rng, self.height, self.width = rng, height, width
        # How much of each pixel the tissue covers, 0 to 1.
        rounded = cv2.GaussianBlur(tissue.astype(np.float32), (0, 0), 1.3)
        soft = cv2.resize(rounded, (width, height), interpolation=cv2.INTER_CUBIC)
        ragged = soft + 0.12 * smooth_noise(rng, height, width, 5.0)
        self.cover = np.clip((ragged - 0.45) * 5.0, 0.0, 1.0).astype(np.float32)
        self.tissue = tissue
        # Eosin stains the fibres; haze is the faint haematoxylin of cytoplasm.
        clouds = cloud_noise(rng, height, width, 420.0)
        strands = fibres(rng, height, width)
        self.eosin = np.clip(0.37 + 0.07 * clouds + 0.075 * strands, 0.04, 1.2)
        # Clefts between bundles of collagen: bare glass shows through.
        self.eosin *= np.clip(1.0 - 0.9 * np.maximum(-strands - 1.5, 0.0), 0.12, 1.0)
        self.haze = 0.035 + 0.015 * np.clip(clouds, -1.5, 2.0)
        self.nuclei = np.zeros((height, width), np.float32)
        kinds = (FIBROBLAST, EPITHELIAL, LYMPHOCYTE, ATYPICAL)
        self.sprites = {kind: NucleusSprites(kind, rng) for kind in kinds}

    def add_stroma_nuclei(self, elsewhere: BoolArray) -> None:
        """Scatter spindle cells through the stroma, and single lymphocytes."""
        free = self.tissue & ~elsewhere
        density = float(self.rng.uniform(0.9, 1.5))
        for x, y in self._points(free, density * 1e-3):
            self.sprites[FIBROBLAST].stamp(self.nuclei, x, y, self.rng)
        for x, y in self._points(free, 0.12e-3):
            self.sprites[LYMPHOCYTE].stamp(self.nuclei, x, y, self.rng)

    def add_vacuoles(self, elsewhere: BoolArray) -> None:
        """Cut round holes with thin walls: fat cells, in groups."""
        near = random_spots(self.rng, np.where(elsewhere, 0.0, self.tissue * 30.0), 2, (6.0, 14.0))
        holes = np.zeros((self.height, self.width), np.uint8)
        for x, y in self._points(near & ~elsewhere, 0.35e-3):
            radius = int(self.rng.uniform(14, 32))
            cv2.circle(holes, (round(x), round(y)), radius, 255, -1)
        soft = cv2.GaussianBlur(holes, (0, 0), 1.5).astype(np.float32) / 255.0
        self.eosin *= 1.0 - 0.93 * soft
        self.haze = self.haze * (1.0 - soft)

    def add_gland(self, gland: Gland) -> None:
        """Draw one gland: an empty lumen, a ring of tall cells, their nuclei at the base."""
        rng = self.rng
        reach = int(gland.long_px * 1.35) + 4
        x0, x1 = max(int(gland.x) - reach, 0), min(int(gland.x) + reach, self.width)
        y0, y1 = max(int(gland.y) - reach, 0), min(int(gland.y) + reach, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        cos, sin = np.cos(gland.angle), np.sin(gland.angle)
        # Distance from the gland's axes, 1 at its outline, which is not quite smooth.
        along = ((x - gland.x) * cos + (y - gland.y) * sin) / gland.long_px
        across = (-(x - gland.x) * sin + (y - gland.y) * cos) / gland.short_px
        waves = 0.05 * smooth_noise(rng, y1 - y0, x1 - x0, max(20.0, gland.short_px * 0.5))
        radius = np.hypot(along, across) + waves
        # A ring of cells about 30 px high around an empty lumen.
        lumen = 1.0 - 30.0 / gland.short_px * rng.uniform(0.85, 1.1)
        inside = _step(1.0 - radius, 25.0)
        empty = _step(lumen - radius, 30.0) if lumen > 0.1 else np.zeros_like(radius)
        part = (slice(y0, y1), slice(x0, x1))
        grain = 0.03 * smooth_noise(rng, y1 - y0, x1 - x0, 4.0)
        self.eosin[part] = self.eosin[part] * (1.0 - inside) + inside * (0.27 + grain)
        self.haze[part] = self.haze[part] * (1.0 - inside) + inside * 0.13
        # One lumen in three holds pale pink secretion.
        secretion = float(rng.choice([0.0, 0.0, 0.18]))
        self.eosin[part] = self.eosin[part] * (1.0 - empty) + empty * secretion
        self.haze[part] *= 1.0 - empty
        # Nuclei side by side at the base of the cells, each pointing outwards.
        around = np.pi * (gland.long_px + gland.short_px)
        count = max(8, int(around / rng.uniform(11.0, 13.5)))
        for k in range(count):
            turn = 2.0 * np.pi * (k + rng.uniform(-0.25, 0.25)) / count
            ring = 1.0 - rng.uniform(7.0, 14.0) / gland.short_px
            u, v = gland.long_px * ring * np.cos(turn), gland.short_px * ring * np.sin(turn)
            at_x, at_y = gland.x + u * cos - v * sin, gland.y + u * sin + v * cos
            outward = np.arctan2(at_y - gland.y, at_x - gland.x)
            self.sprites[EPITHELIAL].stamp(self.nuclei, at_x, at_y, rng, float(outward))

    def add_lymphocytes(self, where: BoolArray) -> None:
        """Pack lymphocytes: small, round and dark, but not atypical."""
        for x, y in self._packed(where, float(self.rng.uniform(9.5, 12.0))):
            self.sprites[LYMPHOCYTE].stamp(self.nuclei, x, y, self.rng)

    def add_foci(self, where: BoolArray) -> None:
        """Crowd large irregular nuclei over bluish, disordered cytoplasm."""
        # The cytoplasm of a focus takes less eosin and more haematoxylin.
        soft = cv2.resize(
            cv2.GaussianBlur(where.astype(np.float32), (0, 0), 1.2),
            (self.width, self.height),
            interpolation=cv2.INTER_LINEAR,
        )
        strength = float(self.rng.uniform(0.5, 0.9))
        self.eosin *= 1.0 - 0.3 * strength * soft
        self.haze = self.haze + 0.12 * strength * soft
        for x, y in self._packed(where, float(self.rng.uniform(19.0, 26.0))):
            self.sprites[ATYPICAL].stamp(self.nuclei, x, y, self.rng)
        for x, y in self._points(where, 0.3e-3):
            self.sprites[LYMPHOCYTE].stamp(self.nuclei, x, y, self.rng)

    def develop(self) -> UInt8Array:
        """Return the light that reaches the camera, RGB uint8 (h, w, 3).

        Source:
            Ruifrok and Johnston (2001): light = glass * exp(-sum of stain x its density), by
            channel.
        """
        rng = self.rng
        # Densities of both stains; nuclei displace eosin, and each slide is stained differently.
        blue = (self.nuclei + self.haze.astype(np.float32)) * self.cover
        blue *= float(rng.uniform(0.82, 1.15))
        pink = self.eosin.astype(np.float32) * (1.0 - 0.55 * np.clip(self.nuclei, 0.0, 1.0))
        pink *= self.cover * float(rng.uniform(0.85, 1.2))
        # The lamp's faint shading, and the sensor's noise.
        shading = 1.0 + 0.008 * smooth_noise(rng, self.height, self.width, 1500.0)
        noise = rng.standard_normal((GRAIN_PX, GRAIN_PX)).astype(np.float32)
        rows, columns = -(-self.height // GRAIN_PX), -(-self.width // GRAIN_PX)
        grain = 1.6 * np.tile(noise, (rows, columns))[: self.height, : self.width]
        hue = rng.uniform(0.94, 1.06, size=(2, 3)).astype(np.float32)
        out = np.empty((self.height, self.width, 3), np.uint8)
        for c in range(3):
            density = blue * (HAEMATOXYLIN[c] * hue[0, c]) + pink * (EOSIN[c] * hue[1, c])
            light = GLASS[c] * shading * np.exp(-density)
            light = cv2.GaussianBlur(light, (0, 0), 0.8)
            out[:, :, c] = np.clip(light + grain + 0.5, 0.0, 255.0).astype(np.uint8)
        return out

    def _points(self, where: BoolArray, per_px: float) -> list[tuple[float, float]]:
        """Return random points inside a coarse map, `per_px` of them for each slide pixel."""
        rows, columns = np.nonzero(where)
        count = self.rng.poisson(len(rows) * MAP_STEP_PX**2 * per_px)
        if not count:
            return []
        chosen = self.rng.integers(len(rows), size=count)
        jitter = self.rng.uniform(0.0, MAP_STEP_PX, size=(count, 2))
        x = columns[chosen] * MAP_STEP_PX + jitter[:, 0]
        y = rows[chosen] * MAP_STEP_PX + jitter[:, 1]
        return list(zip(x.tolist(), y.tolist(), strict=True))

    def _packed(self, where: BoolArray, spacing_px: float) -> list[tuple[float, float]]:
        """Return points inside a coarse map that keep about `spacing_px` from each other."""
        y, x = np.mgrid[0 : self.height : spacing_px, 0 : self.width : spacing_px]
        x[1::2] += spacing_px / 2
        jitter = self.rng.normal(0.0, 0.24 * spacing_px, size=(2, *x.shape))
        x, y = (x + jitter[0]).ravel(), (y + jitter[1]).ravel()
        rows = np.floor(y / MAP_STEP_PX).astype(int)
        columns = np.floor(x / MAP_STEP_PX).astype(int)
        inside = (rows >= 0) & (rows < where.shape[0]) & (columns >= 0) & (columns < where.shape[1])
        inside[inside] = where[rows[inside], columns[inside]]
        # Packing is never perfect: some points stay empty.
        inside &= self.rng.random(inside.shape) < 0.88
        return list(zip(x[inside].tolist(), y[inside].tolist(), strict=True))


def _step(values: Float32Array, steepness: float) -> Float32Array:
    return np.asarray(np.clip(values * steepness + 0.5, 0.0, 1.0), dtype=np.float32)
