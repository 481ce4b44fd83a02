"""How often a bundle's reference refuses what it should, and what it should not: real images.

The calibration images are split by tissue block. Each sixth of the blocks is held back in turn: a
reference is fitted on the others and asked about these. Foreign images are asked of a reference of
all blocks. A field is a file; its tiles are its cells. Colours are asked as they are and with red
and blue exchanged.

usage: python tests/benchmarks/evaluate_out_of_distribution.py DATA [--tiles-per-image 16] [--json]
       DATA is ../shared/data: osteosarcoma_he calibrates, by the EfficientNet-Lite0 of extractor/
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from edge_mil_export.bundle.reference_file import make_reference
from edge_mil_export.extractors import open_extractor
from edge_mil_export.progress import progress
from edge_mil_export.tiles import FileTiles, spread

from edge_mil.imaging import TissueTest
from edge_mil.pipeline.ood.reference import Reference
from edge_mil.types import Float32Array, UInt8Array

TILE_PX, MPP = 224, 1.0
EXTRACTOR = "timm:tf_efficientnet_lite0"
NORMALISE = "0.485,0.456,0.406/0.229,0.224,0.225"
CALIBRATION = "osteosarcoma_he"
OTHER_TISSUE = ("breakhis_400x", "crc_he", "oral_he")
FOREIGN = (
    "blood_disease_fov",
    "blood_cells_fov",
    "bccd",
    "focus_stack_a",
    "brightfield_shading",
    "stage_tiles",
)
PEN = "gate_negatives"
PARTS = 6
MAX_FILES = 60
NOISE_TILES = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """Shares of refused tiles and fields, and of fields whose channels look exchanged.

    Attributes:
        images: Where they are from.
        tiles: How many tiles.
        tiles_refused: Share beyond the tile's limit.
        fields: How many fields.
        fields_refused: Share out of distribution.
        exchanged_as_sent: Share of fields called exchanged as they are.
        exchanged_found: Share of fields called exchanged with red and blue exchanged.
    """

    images: str
    tiles: int
    tiles_refused: float
    fields: int
    fields_refused: float
    exchanged_as_sent: float
    exchanged_found: float


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One file: its tiles, their features, and the whole picture where there is one."""

    name: str
    tiles: UInt8Array
    features: Float32Array

    @property
    def picture(self) -> UInt8Array:
        """The tiles side by side: what a camera would have shown."""
        return np.concatenate(list(self.tiles), axis=1)


def main() -> None:
    """Fit, ask, print."""
    parser = argparse.ArgumentParser(description="False alarms and detection on real images.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--tiles-per-image", type=int, default=16, metavar="N")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = evaluate(arguments.data, arguments.tiles_per_image)
    if arguments.json:
        print(json.dumps({"results": [asdict(row) for row in rows]}))
        return
    print("| images | tiles | refused | fields | refused | exchanged, as sent | exchanged, found |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        print(
            f"| {r.images} | {r.tiles} | {r.tiles_refused:.1%} | {r.fields} "
            f"| {r.fields_refused:.1%} | {r.exchanged_as_sent:.1%} | {r.exchanged_found:.1%} |"
        )


def evaluate(data: Path, most: int) -> list[Asked]:
    """Return a row for held-back blocks, other tissue and foreign images."""
    weights = next((data / "extractor").glob("*.safetensors"))
    source = open_extractor(
        EXTRACTOR, weights=weights, tile_px=(TILE_PX, TILE_PX), normalise=NORMALISE
    )
    fields = list(_fields(data / CALIBRATION, source.features, most))
    blocks = sorted({_block(field.name) for field in fields})
    held: list[tuple[Reference, list[Field]]] = []
    for part in range(PARTS):
        away = set(blocks[part::PARTS])
        kept = [field for field in fields if _block(field.name) not in away]
        held.append((_fit(kept), [field for field in fields if _block(field.name) in away]))
    rows = [_ask("osteosarcoma_he, blocks held back", held)]
    whole = _fit(fields)
    rows += [
        _ask(name, [(whole, list(_fields(data / name, source.features, most)))])
        for name in (*OTHER_TISSUE, *FOREIGN)
    ]
    pen = [_read(path) for path in sorted((data / PEN).glob("*pen*"))]
    made = {"pen mark": [_tiles(picture)[:most] for picture in pen], "noise": [_noise()]}
    for name, pictures in made.items():
        shown = [Field(name, tiles, source.features(tiles)) for tiles in pictures]
        rows.append(_ask(name, [(whole, shown)]))
    return rows


def _fields(
    folder: Path, extract: Callable[[UInt8Array], Float32Array], most: int
) -> Iterator[Field]:
    test = TissueTest()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    chosen = [paths[i] for i in spread(len(paths), MAX_FILES)]
    for path in progress(chosen, folder.name, "file"):
        shown = [tile for tile in _tiles(_read(path)) if test.share(tile) >= test.min_share]
        if shown:
            tiles = np.stack([shown[i] for i in spread(len(shown), most)])
            yield Field(path.relative_to(folder).as_posix(), tiles, extract(tiles))


def _fit(fields: Sequence[Field]) -> Reference:
    """Return the reference as the exporter would write it and the device read it."""
    files = [FileTiles(field.name, field.tiles, is_tile=False) for field in fields]
    known = {
        tile.tobytes(): row for f in fields for tile, row in zip(f.tiles, f.features, strict=True)
    }

    def remembered(batch: UInt8Array) -> Float32Array:
        return np.stack([known[tile.tobytes()] for tile in batch])

    return Reference.parse(make_reference(files, remembered, TissueTest()), TissueTest())


def _ask(name: str, parts: Sequence[tuple[Reference, list[Field]]]) -> Asked:
    tiles: list[bool] = []
    fields: list[bool] = []
    sent: list[bool] = []
    found: list[bool] = []
    for reference, shown in parts:
        for field in shown:
            distances = reference.distance(field.features)
            tiles += (distances > reference.limit).tolist()
            judged = reference.evaluate(distances)
            fields.append(judged is not None and not judged.passed)
            for asked, picture in ((sent, field.picture), (found, field.picture[:, :, ::-1])):
                measure = reference.channels_exchanged(np.ascontiguousarray(picture))
                asked.append(measure is not None and not measure.passed)

    def share(of: list[bool]) -> float:
        return sum(of) / len(of)

    return Asked(
        name, len(tiles), share(tiles), len(fields), share(fields), share(sent), share(found)
    )


def _block(name: str) -> str:
    """Return the tissue block of a file: "viable/Case-4-C21-10306-21689.jpg" is Case-4-C21."""
    return name.rpartition("/")[2].rsplit("-", 2)[0]


def _read(path: Path) -> UInt8Array:
    bgr: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[:, :, ::-1])


def _tiles(picture: UInt8Array) -> UInt8Array:
    rows, columns = picture.shape[0] // TILE_PX, picture.shape[1] // TILE_PX
    inside = picture[: rows * TILE_PX, : columns * TILE_PX]
    grid = inside.reshape(rows, TILE_PX, columns, TILE_PX, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(-1, TILE_PX, TILE_PX, 3))


def _noise() -> UInt8Array:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (NOISE_TILES, TILE_PX, TILE_PX, 3), dtype=np.uint8)


if __name__ == "__main__":
    main()
