"""Split tiles into those that calibrate and bags on which scores are compared: never the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mil.types import Float32Array, UInt8Array
from edge_mil_export.errors import CalibrationError
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.tiles import FileTiles, TileMaker, spread

CALIBRATION_TILES = 64
"""256 did no better (`docs/design/quantization-and-runtime.md`, "Fidelity on real tissue")."""
MIN_TILES = 16
BAG_TILES = 16
"""Tiles of a bag that is made up of single tiles."""
MIN_BAG_TILES = 8
MIN_COMPARED_BAGS = 8
"""With fewer, slides are compared in strips too."""
MAX_BAGS = 32
MAX_COMPARED_TILES = 384
"""Of images; slides are compared whole (up to 1024 tiles each)."""
SLIDES, HELD_BACK, GENERATED = "slides", "calibration images held back", "generated tiles"


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """Tiles that are scored together.

    Attributes:
        name: The slide, the image, or which of the bags.
        tiles: uint8, shape (n, h, w, 3).
        parts: Strips that are scored as bags of their own beside the whole; 1 for none.
    """

    name: str
    tiles: UInt8Array
    parts: int = 1

    def scored(self) -> list[tuple[str, int]]:
        """Return name and number of tiles of each bag that `split_features` gives."""
        if self.parts == 1:
            return [(self.name, len(self.tiles))]
        strips = np.array_split(np.arange(len(self.tiles)), self.parts)
        names = [f"{self.name}, part {k} of {self.parts}" for k in range(1, self.parts + 1)]
        sizes = [len(strip) for strip in strips]
        return [(self.name, len(self.tiles)), *zip(names, sizes, strict=True)]

    def split_features(self, features: Float32Array) -> list[Float32Array]:
        """Return the features (n, d) of the whole, then those of each part."""
        return [features, *(np.array_split(features, self.parts) if self.parts > 1 else [])]


@dataclass(frozen=True, slots=True, eq=False)
class FidelitySet:
    """The tiles that an export is calibrated and compared on.

    Attributes:
        calibration: uint8 (n, h, w, 3); None where nothing is quantised.
        calibration_files: Their files.
        bags: Never of the tiles that calibrate.
        source: What the bags are: slides, calibration images held back, or generated tiles.
        read: All tiles of the calibration folder, for the bundle's own reference.
    """

    calibration: UInt8Array | None
    calibration_files: tuple[str, ...]
    bags: tuple[Bag, ...]
    source: str
    read: tuple[FileTiles, ...] = ()


def gather(maker: TileMaker, calibration: Path | None, slides: Sequence[Path]) -> FidelitySet:
    """Read the images and split them.

    Args:
        maker: Cuts tiles.
        calibration: Folder of `--calibration`, or None.
        slides: Of `--fidelity-slide`.

    Raises:
        CalibrationError: There are too few tiles, or a file cannot be used.
        SourceError: A file is damaged.
    """
    slide_bags = tuple(_slide_bag(maker.slide(path), len(slides)) for path in slides)
    tiles: UInt8Array | None = None
    names: tuple[str, ...] = ()
    held_back: tuple[Bag, ...] = ()
    files: list[FileTiles] = []
    if calibration is not None:
        files = maker.folder(calibration)
        count = sum(len(file.tiles) for file in files)
        if count < MIN_TILES:
            raise CalibrationError(
                f"{calibration} gives {count} tiles, and INT8 needs at least {MIN_TILES} "
                f"({2 * CALIBRATION_TILES} or more are better: {CALIBRATION_TILES} calibrate, the "
                "others judge); add images of other slides.",
                tiles=count,
                wanted=MIN_TILES,
            )
        tiles, names, held_back = split(files)
    if slide_bags:
        return FidelitySet(tiles, names, slide_bags, SLIDES, tuple(files))
    if held_back:
        return FidelitySet(tiles, names, held_back, HELD_BACK, tuple(files))
    painted = tuple(
        Bag(f"generated {k}", paint_tiles(BAG_TILES, maker.tile_px, k)) for k in range(4)
    )
    return FidelitySet(tiles, names, painted, GENERATED, tuple(files))


def _slide_bag(slide: FileTiles, slides: int) -> Bag:
    """Return a slide as a bag; of few slides, strips are bags too.

    The score of a single bag can stay where it is by luck, which would decide the search.
    """
    wanted = -(-MIN_COMPARED_BAGS // slides) if slides < MIN_COMPARED_BAGS else 1
    parts = max(1, min(wanted, len(slide.tiles) // MIN_BAG_TILES))
    return Bag(slide.name, slide.tiles, parts)


def split(
    files: Sequence[FileTiles],
) -> tuple[UInt8Array, tuple[str, ...], tuple[Bag, ...]]:
    """Return the calibration tiles, their files, and the bags that are held back."""
    if all(file.is_tile for file in files):
        return _split_tiles(files)
    # A quarter of the images calibrates: 10 of 39 where the recipes were measured.
    count = max(2, -(-len(files) // 4))
    while count < len(files) // 2 and _tiles_of(files, count) < CALIBRATION_TILES:
        count += 1
    if len(files) < 4 or _tiles_of(files, count) < MIN_TILES:
        return _split_within(files)
    chosen = set(spread(len(files), count))
    used = [file for number, file in enumerate(files) if number in chosen]
    left = [file for number, file in enumerate(files) if number not in chosen]
    bags = [Bag(file.name, file.tiles) for file in left if len(file.tiles) >= 2]
    return _calibration(used), tuple(file.name for file in used), _limited(bags)


def _tiles_of(files: Sequence[FileTiles], count: int) -> int:
    return sum(len(files[number].tiles) for number in spread(len(files), count))


def _split_tiles(
    files: Sequence[FileTiles],
) -> tuple[UInt8Array, tuple[str, ...], tuple[Bag, ...]]:
    """Split files that are one tile each; bags are tiles of one folder where there are several."""
    count = min(CALIBRATION_TILES, max(MIN_TILES, len(files) // 2))
    chosen = set(spread(len(files), count))
    used = [file for number, file in enumerate(files) if number in chosen]
    folders: dict[str, list[FileTiles]] = {}
    for number, file in enumerate(files):
        if number not in chosen:
            folders.setdefault(file.name.rpartition("/")[0], []).append(file)
    bags = []
    for folder, left in folders.items():
        for at in range(0, len(left), BAG_TILES):
            part = left[at : at + BAG_TILES]
            if len(part) >= MIN_BAG_TILES:
                tiles = np.concatenate([file.tiles for file in part])
                bags.append(Bag(f"{folder or 'tiles'} from {part[0].name}", tiles))
    if not bags and sum(map(len, folders.values())) >= MIN_BAG_TILES:
        every = [file.tiles for left in folders.values() for file in left]
        bags.append(Bag("all that were held back", np.concatenate(every)))
    return _calibration(used), tuple(file.name for file in used), _limited(bags)


def _split_within(
    files: Sequence[FileTiles],
) -> tuple[UInt8Array, tuple[str, ...], tuple[Bag, ...]]:
    """Split the tiles of each of a few images: every other one calibrates."""
    used = [FileTiles(file.name, file.tiles[::2], file.is_tile) for file in files]
    bags = [Bag(file.name, file.tiles[1::2]) for file in files if len(file.tiles) >= 4]
    return _calibration(used), tuple(file.name for file in used), _limited(bags)


def _calibration(files: Sequence[FileTiles]) -> UInt8Array:
    """Return at most 64 tiles, the files in turn."""
    share = -(-CALIBRATION_TILES // len(files))
    parts = [file.tiles[spread(len(file.tiles), share)] for file in files]
    tiles = np.concatenate(parts)
    return tiles[spread(len(tiles), CALIBRATION_TILES)]


def _limited(bags: Sequence[Bag]) -> tuple[Bag, ...]:
    """Return at most 32 bags and some 384 tiles."""
    kept = [bags[number] for number in spread(len(bags), MAX_BAGS)]
    share = max(BAG_TILES, MAX_COMPARED_TILES // max(1, len(kept)))
    return tuple(Bag(bag.name, bag.tiles[spread(len(bag.tiles), share)]) for bag in kept)
