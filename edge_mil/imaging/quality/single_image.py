"""Judge the quality of one image without a session: its verdict, and every number behind it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.correction.background_estimate import estimate_background
from edge_mil.imaging.grid import Cell, GridGeometry
from edge_mil.imaging.quality.focus import box_sharpness
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.quality.light import CHANNEL_DIFFERENCE, LIGHT_ON_DARK
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Measure, UInt8Array, Verdict

MIN_CELL_SHARE = 0.5
"""Share of a cell that must lie in the image for the cell to be tested for tissue: one speck of
dust fills a sliver."""

SPARSE_SHARE = 0.3
"""Share of tissue in the fullest cell below which the image may hold nothing but dust."""

STAIN_DIFFERENCE = 0.12
"""Difference of the channels' mean darkness, as a share of the darkest: dust and shadows absorb all
colours alike (0.01 to 0.06 under noise), the stains do not (0.3 and more on every real field)."""

STRUCTURE = 80.0
"""Sharpness, grey levels squared, from which what is dark and grey may be unstained cells (245 in
`brightfield_shading`), not the edge of the lamp's light (2)."""


@dataclass(frozen=True, slots=True, eq=False)
class QualityReport:
    """Quality of one image.

    Attributes:
        verdict: SATURATED, WRONG_LIGHT, BLANK, NOISY, MOVING, BLURRED or ACCEPTED.
        measures: The numbers, with their thresholds.
        sharpness: Noise-corrected contrast of its tissue, grey levels squared. Of several focal
            planes of one place the largest is that of the sharpest plane, refused ones included.
        flat: The image divided by its own estimated light, RGB uint8 (h, w, 3).
        cells: The whole cells (i, j) that show tissue, the image's corner being that of (0, 0).
    """

    verdict: Verdict
    measures: tuple[Measure, ...]
    sharpness: float
    flat: UInt8Array
    cells: tuple[Cell, ...]


class ImageQuality:
    """Judges images one by one; the light of each is estimated from that image alone."""

    def __init__(
        self,
        geometry: GridGeometry | None = None,
        tissue: TissueTest | None = None,
        settings: GateSettings | None = None,
    ) -> None:
        """Set what is the same for all images.

        Args:
            geometry: Size of the cells, and of the camera's pixels; None where the whole image is
                one instance.
            tissue: The tissue test; None: the nominal one.
            settings: Thresholds of the gates; None: the defaults.
        """
        self.geometry = geometry
        self.tissue = TissueTest() if tissue is None else tissue
        self._gate = FrameGate(settings or GateSettings(), self.tissue)

    def evaluate(self, pixels: UInt8Array) -> QualityReport:
        """Judge one image.

        Args:
            pixels: RGB uint8 (h, w, 3), as the camera gave it.
        """
        saturation = self._gate.saturation(pixels)
        light = estimate_background(pixels)
        flat = light.flatten(pixels, self.tissue.background)
        gated = self._gate.evaluate(flat)
        share, cells = self._tissue_cells(flat)
        blocks = self._gate.blocking(pixels)
        # The level of the glass is estimated from the image, so only what no lamp does is wrong.
        inverted = tuple(
            measure
            for measure in self._gate.light(pixels).measures
            if measure.name in (LIGHT_ON_DARK, CHANNEL_DIFFERENCE)
        )
        measures: tuple[Measure, ...] = (
            saturation,
            Measure("background", sum(light.brightest) / 3.0),
            Measure("tissue_share", share, self.tissue.min_share, share >= self.tissue.min_share),
        )
        if not saturation.passed:
            verdict = Verdict.SATURATED
        elif share < self.tissue.min_share:
            verdict = Verdict.BLANK
        elif inverted:
            verdict = Verdict.WRONG_LIGHT
        elif not blocks.passed or gated.verdict is Verdict.NOISY:
            verdict = Verdict.NOISY
        elif gated.empty:
            verdict = Verdict.BLANK
        else:
            verdict = gated.verdict or Verdict.ACCEPTED
        measures = (*measures, *inverted, blocks)
        return QualityReport(verdict, (*measures, *gated.measures), gated.sharpness, flat, cells)

    def _tissue_cells(self, flat: UInt8Array) -> tuple[float, tuple[Cell, ...]]:
        """Return the largest share of tissue in a cell, and the whole cells that show tissue."""
        height, width = flat.shape[:2]
        if self.geometry is None:
            return self._tissue_share(flat), ()
        largest, cells, tested = 0.0, [], False
        for i, j in self.geometry.cells_touching(0, 0, width, height):
            box = self.geometry.box(i, j)
            x1, y1 = min(box.x1, width), min(box.y1, height)
            x0, y0 = max(box.x0, 0), max(box.y0, 0)
            shown = (x1 - x0) * (y1 - y0) / (box.width_px * box.height_px)
            if shown < MIN_CELL_SHARE:
                continue
            tested = True
            share = self._tissue_share(flat[y0:y1, x0:x1])
            largest = max(largest, share)
            if shown == 1.0 and share >= self.tissue.min_share:
                cells.append((i, j))
        if not tested:
            largest = self._tissue_share(flat)
        return largest, tuple(cells)

    def _tissue_share(self, part: UInt8Array) -> float:
        """Return the share of tissue; 0 where the dark pixels are only dust or a shadow."""
        share = self.tissue.share(part)
        if share < self.tissue.min_share:
            return share
        # Mean darkness of each channel over the tissue pixels; stain differs between channels.
        levels = cv2.mean(part, self.tissue.mask(part))
        darkness = [
            glass - level for glass, level in zip(self.tissue.background, levels, strict=False)
        ]
        if max(darkness) - min(darkness) >= STAIN_DIFFERENCE * max(darkness):
            return share
        grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
        return share if share >= SPARSE_SHARE and box_sharpness(grey) >= STRUCTURE else 0.0
