"""Paint a slide that looks like tissue stained with H&E, and know the truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.demo.slide_layout import (
    MAP_STEP_PX,
    BoolArray,
    gland_map,
    random_spots,
    scatter_glands,
    tissue_depth,
)
from edge_mil.demo.stain_canvas import StainCanvas
from edge_mil.types import UInt8Array

MPP = 0.5
"""Pixel size of what is painted, µm/px: that of a 20x scan."""

SMALLEST_PX = 512


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
    tissue: BoolArray
    foci: BoolArray
    lymphocytes: BoolArray
    glands: BoolArray


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
    if min(height_px, width_px) < SMALLEST_PX:
        raise ValueError(f"A painted slide is at least 512 px wide, got {width_px}x{height_px}.")
    # The label is part of the seed: a positive slide is not its negative twin with foci.
    rng = np.random.default_rng([seed, int(positive), height_px, width_px])
    rows, columns = -(-height_px // MAP_STEP_PX), -(-width_px // MAP_STEP_PX)
    depth = tissue_depth(rng, rows, columns)
    tissue = depth > 0.0
    foci = np.zeros((rows, columns), bool)
    if positive:
        foci = random_spots(rng, depth, int(rng.integers(1, 4)), (11.0, 21.0))
    lymphocytes = random_spots(rng, depth, int(rng.integers(2, 6)), (7.0, 17.0)) & ~foci
    glands = scatter_glands(rng, tissue, foci | lymphocytes)
    inside_glands = gland_map(glands, rows, columns)
    canvas = StainCanvas(rng, tissue, height_px, width_px)
    canvas.add_vacuoles(foci | inside_glands)
    canvas.add_stroma_nuclei(foci | inside_glands)
    for gland in glands:
        canvas.add_gland(gland)
    canvas.add_lymphocytes(lymphocytes)
    canvas.add_foci(foci)
    return PaintedSlide(canvas.develop(), positive, tissue, foci, lymphocytes, inside_glands)
