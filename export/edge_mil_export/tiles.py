"""Read a folder of tiles, larger images or slides as tiles, spread over its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mil.bundle import TissueSpec
from edge_mil.cameras import SlideFile, read_image
from edge_mil.errors import PixelSizeError
from edge_mil.imaging import GridGeometry, TissueTest, bring_to_tile
from edge_mil.pipeline.whole_slide.cells import tissue_cells
from edge_mil.types import UInt8Array
from edge_mil_export.errors import CalibrationError
from edge_mil_export.progress import progress

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
"""Images or slides: OpenSlide tells which."""
MAX_FILES = 512
MAX_TILES_PER_IMAGE = 64
MAX_TILES_PER_SLIDE = 1024
"""Bounds of what is read and held; of more, an even share is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class FileTiles:
    """The tiles of one file.

    Attributes:
        name: The file, within its folder.
        tiles: uint8, shape (n, h, w, 3), n at least 1.
        is_tile: Whether the file is a tile itself, or a field that is one instance.
    """

    name: str
    tiles: UInt8Array
    is_tile: bool


@dataclass(frozen=True, slots=True)
class TileMaker:
    """Cuts tiles of the size and pixel size that the bundle's model was trained on.

    Attributes:
        tile_px: Height and width of a tile.
        mpp: The model's pixel size; images are taken to have it, slides are brought to it.
        instances: grid (images are cut) or field (images are shrunk whole).
    """

    tile_px: tuple[int, int]
    mpp: float
    instances: str

    def folder(self, folder: Path) -> list[FileTiles]:
        """Read a calibration folder; at most 512 files of it, evenly spread.

        Raises:
            CalibrationError: It is no folder, or holds no usable image.
            SourceError: An image is damaged.
        """
        if not folder.is_dir():
            raise CalibrationError(
                f"--calibration {folder} is no folder; name one that holds tiles or slides."
            )
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES | SLIDE_SUFFIXES and path.is_file()
        )
        chosen = [files[i] for i in spread(len(files), MAX_FILES)]
        found = []
        for path in progress(chosen, "reading images", "file"):
            tiles = self._read(path, path.relative_to(folder).as_posix())
            if len(tiles.tiles):
                found.append(tiles)
        if not found:
            raise CalibrationError(
                f"{folder} holds no image or slide with tissue; name a folder of tiles of "
                f"{self.tile_px[1]}x{self.tile_px[0]} px, larger images or slides."
            )
        return found

    def slide(self, path: Path) -> FileTiles:
        """Read the tissue cells of a slide at the model's pixel size.

        Raises:
            CalibrationError: The model takes whole fields, or the slide names no pixel size or
                shows no tissue.
            SourceError: It cannot be read.
        """
        if self.instances == "field":
            raise CalibrationError(
                f"{path.name} is a slide, and a bundle of whole fields is measured on images of "
                "fields; put those into the --calibration folder."
            )
        try:
            slide = SlideFile(path)
        except PixelSizeError as error:
            raise CalibrationError(
                f"{path.name} does not say its pixel size; cut it to tiles at {self.mpp:g} um/px "
                "and name their folder with --calibration."
            ) from error
        try:
            geometry = GridGeometry(slide.mpp, *self.tile_px, self.mpp)
            cells = tissue_cells(slide, geometry, TissueSpec())
            tiles = _sample(tile for _, tile in progress(cells, f"reading {path.name}", "cell"))
        finally:
            slide.close()
        if not len(tiles):
            raise CalibrationError(
                f"{path.name} shows no tissue cell of {self.tile_px[1]}x{self.tile_px[0]} px at "
                f"{self.mpp:g} um/px; name another slide."
            )
        return FileTiles(path.name, tiles, is_tile=False)

    def _read(self, path: Path, name: str) -> FileTiles:
        if path.suffix.lower() in SLIDE_SUFFIXES or (
            path.suffix.lower() in TIFF_SUFFIXES and _is_slide(path)
        ):
            return self.slide(path)
        pixels = read_image(path)
        height, width = self.tile_px
        if self.instances == "field":
            return FileTiles(name, bring_to_tile(pixels, height, width)[None], is_tile=True)
        if pixels.shape[0] < height or pixels.shape[1] < width:
            raise CalibrationError(
                f"{name} is {pixels.shape[1]}x{pixels.shape[0]} px, smaller than a tile of "
                f"{width}x{height}; give larger images, at the model's pixel size."
            )
        tiles = _cut(pixels, height, width)
        if len(tiles) == 1:
            return FileTiles(name, tiles, is_tile=True)
        test = TissueTest()
        shown = [tile for tile in tiles if test.share(tile) >= test.min_share]
        kept = [shown[i] for i in spread(len(shown), MAX_TILES_PER_IMAGE)]
        empty = np.empty((0, height, width, 3), dtype=np.uint8)
        return FileTiles(name, np.stack(kept) if kept else empty, is_tile=False)


def spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices of `count`, evenly spread."""
    if count <= wanted:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, wanted).round()]


def _cut(pixels: UInt8Array, height: int, width: int) -> UInt8Array:
    """Return whole tiles (n, height, width, 3) from the middle of an image."""
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    top = (pixels.shape[0] - rows * height) // 2
    left = (pixels.shape[1] - columns * width) // 2
    inside = pixels[top : top + rows * height, left : left + columns * width]
    grid = inside.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(-1, height, width, 3))


def _sample(tiles: Iterator[UInt8Array]) -> UInt8Array:
    """Return the tiles, or 1024 of them, each as likely as any other (reservoir sampling)."""
    rng = np.random.default_rng(0)
    kept: list[UInt8Array] = []
    for number, tile in enumerate(tiles):
        if len(kept) < MAX_TILES_PER_SLIDE:
            kept.append(tile)
        elif (index := int(rng.integers(0, number + 1))) < MAX_TILES_PER_SLIDE:
            kept[index] = tile
    return np.stack(kept) if kept else np.empty((0, 1, 1, 3), dtype=np.uint8)


def _is_slide(path: Path) -> bool:
    import openslide

    return openslide.OpenSlide.detect_format(path) is not None
