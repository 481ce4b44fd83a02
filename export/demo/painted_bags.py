"""Paint slides as bags of tiles with their truth, to train the demo's model on."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.demo.painted_slide import paint_slide
from edge_mil.demo.slide_layout import MAP_STEP_PX
from edge_mil.demo.tiled_tiff import JPEG_QUALITY
from edge_mil.imaging import TissueTest

TILE_PX = 128
SURE_SHARE, FREE_SHARE = 0.25, 0.02
"""A tile is a focus above the first share of focus and none below the second; between is unsure."""

STROMA, GLAND, LYMPHOCYTES, FOCUS, UNSURE = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class PaintedBag:
    """The tissue tiles of one painted slide.

    Attributes:
        seed: Of the painting.
        positive: The slide's label.
        tiles: RGB uint8 (n, 128, 128, 3), as the slide file's JPEG gives them back.
        kinds: What each tile shows: STROMA, GLAND, LYMPHOCYTES, FOCUS or UNSURE.
        focus_share: Share of each tile that is focus, (n,).
    """

    seed: int
    positive: bool
    tiles: npt.NDArray[np.uint8]
    kinds: npt.NDArray[np.int64]
    focus_share: npt.NDArray[np.float32]


def painted_bag(seed: int, positive: bool) -> PaintedBag:
    """Paint a slide and cut its tissue into tiles, on the grid that the runtime uses."""
    slide = paint_slide(seed, positive=positive)
    encoded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(slide.pixels, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
    )[1]
    pixels = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    test, step = TissueTest(), TILE_PX // MAP_STEP_PX
    tiles, kinds, shares = [], [], []
    for row in range(pixels.shape[0] // TILE_PX):
        for column in range(pixels.shape[1] // TILE_PX):
            y, x = row * TILE_PX, column * TILE_PX
            tile = np.ascontiguousarray(pixels[y : y + TILE_PX, x : x + TILE_PX])
            if test.share(tile) < test.min_share:
                continue
            part = (
                slice(row * step, (row + 1) * step),
                slice(column * step, (column + 1) * step),
            )
            share = float(slide.foci[part].mean())
            lymphocytes = float(slide.lymphocytes[part].mean())
            glands = float(slide.glands[part].mean())
            tiles.append(tile)
            kinds.append(_kind(share, lymphocytes, glands))
            shares.append(share)
    return PaintedBag(
        seed, positive, np.stack(tiles), np.array(kinds), np.array(shares, dtype=np.float32)
    )


def painted_bags(first_seed: int, count: int, workers: int) -> list[PaintedBag]:
    """Paint `count` slides, every second one positive, from `first_seed` on."""
    seeds = [first_seed + k for k in range(count)]
    labels = [k % 2 == 1 for k in range(count)]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(painted_bag, seeds, labels))


def _kind(focus: float, lymphocytes: float, glands: float) -> int:
    if focus >= SURE_SHARE:
        return FOCUS
    if focus > FREE_SHARE:
        return UNSURE
    if lymphocytes >= SURE_SHARE:
        return LYMPHOCYTES
    return GLAND if glands >= SURE_SHARE else STROMA
