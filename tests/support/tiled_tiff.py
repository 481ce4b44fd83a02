"""Write a picture as a tiled TIFF, the plainest slide file that OpenSlide reads."""

from __future__ import annotations

from pathlib import Path

import tifffile

from edge_mil.types import UInt8Array

TILE_PX = 256
UM_PER_CM = 10_000


def write_tiled_tiff(
    path: Path, pixels: UInt8Array, mpp: float | None = None, mpp_y: float | None = None
) -> Path:
    """Write RGB uint8 (h, w, 3), uncompressed, with or without a pixel size."""
    scale: dict[str, object] = {}
    if mpp is not None:
        per_cm = tuple((round(UM_PER_CM / um * 1000), 1000) for um in (mpp, mpp_y or mpp))
        scale = {"resolution": per_cm, "resolutionunit": "centimeter"}
    tifffile.imwrite(
        path, pixels, tile=(TILE_PX, TILE_PX), photometric="rgb", metadata=None, **scale
    )
    return path
