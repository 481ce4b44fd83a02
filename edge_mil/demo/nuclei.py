"""Draw nuclei for painted tissue: some sprites of each kind, stamped again and again.

A number without a name was chosen by eye, so that the nuclei look like those of H&E at 20x.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.types import Float32Array

SPRITES = 160
"""Drawn nuclei of each kind."""
SUPERSAMPLING = 3


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """How nuclei of one kind look, at 0.5 µm/px.

    Attributes:
        radius_px: Mean radius.
        radius_spread: Standard deviation of the radius, as a share of it.
        elongation: Long over short axis, from and to.
        density: Optical density of haematoxylin, from and to.
        irregularity: How far the outline strays from an ellipse, as a share of the radius.
        texture: Depth of the chromatin's grain, 0 to 1.
        vesicular: Paleness of the middle under a dark rim, 0 to 1.
    """

    radius_px: float
    radius_spread: float
    elongation: tuple[float, float]
    density: tuple[float, float]
    irregularity: float
    texture: float
    vesicular: float


FIBROBLAST = NucleusKind(4.6, 0.18, (1.9, 3.6), (0.75, 1.05), 0.05, 0.25, 0.1)
EPITHELIAL = NucleusKind(6.6, 0.14, (1.1, 1.6), (0.6, 0.9), 0.05, 0.35, 0.35)
LYMPHOCYTE = NucleusKind(4.4, 0.10, (1.0, 1.15), (1.15, 1.4), 0.04, 0.3, 0.0)
ATYPICAL = NucleusKind(9.4, 0.26, (1.05, 1.8), (0.7, 1.25), 0.13, 0.6, 0.4)


class NucleusSprites:
    """Drawn nuclei of one kind, each a small map of optical density, sorted by direction."""

    def __init__(self, kind: NucleusKind, rng: np.random.Generator) -> None:
        """Draw the sprites.

        Args:
            kind: How they look.
            rng: Source of the numbers.
        """
        self._angles = np.sort(rng.uniform(0.0, np.pi, SPRITES))
        self._sprites = [_draw(kind, float(angle), rng) for angle in self._angles]

    def stamp(
        self,
        density: Float32Array,
        x: float,
        y: float,
        rng: np.random.Generator,
        angle: float | None = None,
    ) -> None:
        """Add one nucleus to a density map.

        Args:
            density: Haematoxylin map, float32 (h, w), changed in place.
            x: Column of the centre.
            y: Row of the centre.
            rng: Source of the numbers.
            angle: Direction of the long axis, radians; None for any.
        """
        if angle is None:
            index = int(rng.integers(SPRITES))
        else:
            near = int(np.searchsorted(self._angles, angle % np.pi))
            index = (near + int(rng.integers(-6, 7))) % SPRITES
        sprite = self._sprites[index]
        size = sprite.shape[0]
        left, top = round(x) - size // 2, round(y) - size // 2
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + size, density.shape[1]), min(top + size, density.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
        under = density[y0:y1, x0:x1]
        # A thin section: the upper nucleus hides most of the lower one's density.
        under[...] = np.maximum(under, part) + 0.25 * np.minimum(under, part)


def _draw(kind: NucleusKind, angle: float, rng: np.random.Generator) -> Float32Array:
    """Return one nucleus as an optical density map, float32, square, its side odd."""
    radius = kind.radius_px * max(0.55, 1.0 + kind.radius_spread * rng.standard_normal())
    stretch = np.sqrt(rng.uniform(*kind.elongation))
    reach = int(np.ceil(radius * stretch * (1.2 + kind.irregularity))) + 2
    side = (2 * reach + 1) * SUPERSAMPLING
    # The outline: an ellipse whose radius wavers by a few harmonics.
    turns = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
    outline = np.ones_like(turns)
    for harmonic in (2, 3, 4, 5):
        depth = kind.irregularity * rng.standard_normal() / np.sqrt(harmonic)
        outline += depth * np.cos(harmonic * turns + rng.uniform(0.0, 2.0 * np.pi))
    outline = np.clip(outline, 0.55, 1.5)
    along = radius * stretch * outline * np.cos(turns)
    across = radius / stretch * outline * np.sin(turns)
    points = np.stack(
        [
            along * np.cos(angle) - across * np.sin(angle),
            along * np.sin(angle) + across * np.cos(angle),
        ],
        axis=1,
    )
    # Filled at three times the resolution; chromatin is grained, and paler in the middle of
    # vesicular nuclei.
    corners = np.round((points + reach + 0.5) * SUPERSAMPLING).astype(np.int32)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [corners.reshape(-1, 1, 2)], 1)
    depth_map = cv2.distanceTransform(mask, cv2.DIST_L2, 3) / (radius / stretch * SUPERSAMPLING)
    rim = 1.0 - kind.vesicular * np.clip(depth_map * 1.6, 0.0, 1.0)
    size = 2 * reach + 1
    grain = rng.standard_normal((size, size)).astype(np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), 1.1)
    chromatin = cv2.resize(soft / soft.std(), (side, side), interpolation=cv2.INTER_LINEAR)
    shade = np.clip(rim * (1.0 + kind.texture * 0.5 * chromatin), 0.25, 1.6)
    # Back to the slide's resolution.
    full = mask.astype(np.float32) * shade.astype(np.float32) * rng.uniform(*kind.density)
    small = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32)
