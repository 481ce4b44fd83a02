"""Write RGB pixels as a tiled TIFF pyramid that OpenSlide opens as a slide with a pixel size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from edge_mil.errors import SourceError
from edge_mil.types import UInt8Array, check_mpp

TILE_PX = 256
JPEG_QUALITY = 92
UM_PER_CM = 10_000.0
SMALLEST_LEVEL_PX = 512
"""The pyramid ends with the first level whose long side is at most this."""

JPEG_OPTIONS = (
    *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
    # Without subsampling: the demo's extractor was trained on these colours.
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


def write_tiled_tiff(path: Path, pixels: UInt8Array, mpp: float) -> None:
    """Write a slide file: JPEG tiles of 256 px, levels by halves, resolution in centimetres.

    Args:
        path: The file; replaced when it is there.
        pixels: RGB uint8, shape (h, w, 3).
        mpp: Its pixel size, µm/px.

    Raises:
        SourceError: The file cannot be written.
        PixelSizeError: `mpp` is no pixel size.

    Source:
        Generic tiled TIFF in OpenSlide's manual: tiled, the smaller levels marked as reduced.
    """
    level_mpp = check_mpp(mpp)
    try:
        with tifffile.TiffWriter(path) as out:
            for level, image in enumerate(_pyramid(pixels)):
                per_cm = (round(UM_PER_CM / level_mpp * 1000), 1000)
                out.write(
                    _jpeg_tiles(image),
                    shape=image.shape,
                    dtype=image.dtype,
                    tile=(TILE_PX, TILE_PX),
                    compression="zlib",  # not so: see _declare_jpeg
                    photometric="ycbcr",
                    subfiletype=tifffile.FILETYPE.REDUCEDIMAGE if level else None,
                    resolution=(per_cm, per_cm),
                    resolutionunit="centimeter",
                    metadata=None,
                    software=False,
                )
                level_mpp *= 2
        _declare_jpeg(path)
    except OSError as error:
        raise SourceError(
            f"The slide {path} cannot be written ({error.strerror}); name another folder."
        ) from error


def _declare_jpeg(path: Path) -> None:
    """Set the compression of every level to JPEG, which is what its tiles hold.

    tifffile takes tiles that are encoded already, but names JPEG only where imagecodecs is
    installed. OpenCV encodes as well, so the tag is written afterwards. Each tile is a whole JPEG
    with its own tables, which libtiff reads as it is.
    """
    with tifffile.TiffFile(path, mode="r+") as file:
        for page in file.pages:
            page.tags["Compression"].overwrite(tifffile.COMPRESSION.JPEG)


def _pyramid(pixels: UInt8Array) -> Iterator[UInt8Array]:
    yield pixels
    while max(pixels.shape[:2]) > SMALLEST_LEVEL_PX:
        height, width = pixels.shape[:2]
        half = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(half, np.uint8)
        yield pixels


def _jpeg_tiles(pixels: UInt8Array) -> Iterator[bytes]:
    """Yield the tiles row by row; those at the right and lower edge repeat their last pixels."""
    height, width = pixels.shape[:2]
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            part = pixels[y : y + TILE_PX, x : x + TILE_PX]
            missing = ((0, TILE_PX - part.shape[0]), (0, TILE_PX - part.shape[1]), (0, 0))
            bgr = cv2.cvtColor(np.pad(part, missing, mode="edge"), cv2.COLOR_RGB2BGR)
            yield cv2.imencode(".jpg", bgr, JPEG_OPTIONS)[1].tobytes()
