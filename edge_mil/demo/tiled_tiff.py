"""Write a picture as a tiled TIFF pyramid that OpenSlide opens with its pixel size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_mil.errors import SourceError
from edge_mil.types import UInt8Array, check_mpp

TILE_PX = 256
JPEG_QUALITY = 92
UM_PER_CM = 10_000.0
SMALLEST_LEVEL_PX = 512
"""The pyramid ends with the first level whose long side is at most this."""

_SHORT, _LONG, _RATIONAL = 3, 4, 5
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "I"}

# Tags of TIFF 6.0 and of its technical note 2, which defines compression 7.
_JPEG, _YCBCR, _CENTIMETRE = 7, 6, 3
_REDUCED = 1


@dataclass(frozen=True, slots=True)
class _Level:
    pixels: UInt8Array
    mpp: float
    reduced: bool


def write_tiled_tiff(path: Path, pixels: UInt8Array, mpp: float) -> None:
    """Write a slide file: JPEG tiles of 256 px, levels by halves, resolution in centimetres.

    Each tile is a whole JPEG with its own tables, which libtiff reads as it is; so no
    JPEGTables tag is needed.

    Args:
        path: The file; replaced when it is there.
        pixels: RGB uint8, shape (h, w, 3).
        mpp: Its pixel size, um/px.

    Raises:
        SourceError: The file cannot be written.
        PixelSizeError: `mpp` is no pixel size.

    Source:
        TIFF 6.0 (Adobe, 1992), sections 2 and 15; generic tiled TIFF in OpenSlide's manual.
    """
    levels = [_Level(pixels, check_mpp(mpp), False)]
    while max(levels[-1].pixels.shape[:2]) > SMALLEST_LEVEL_PX:
        last = levels[-1]
        height, width = last.pixels.shape[:2]
        half = cv2.resize(last.pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(_Level(half.astype(np.uint8, copy=False), last.mpp * 2, True))
    try:
        with path.open("wb") as out:
            out.write(struct.pack("<2sHI", b"II", 42, 0))
            link = 4
            for level in levels:
                offsets, sizes = [], []
                for tile in _tiles(level.pixels):
                    offsets.append(out.tell())
                    sizes.append(out.write(tile))
                at = out.tell() + out.tell() % 2
                out.seek(at)
                out.write(_directory(at, level, offsets, sizes))
                end = out.tell()
                out.seek(link)
                out.write(struct.pack("<I", at))
                # The offset of the next directory follows the last of this one's entries.
                link = at + 2 + 12 * _entry_count(level)
                out.seek(end)
    except OSError as error:
        raise SourceError(
            f"The slide {path} cannot be written ({error.strerror}); name another place."
        ) from error


def _tiles(pixels: UInt8Array) -> list[bytes]:
    height, width = pixels.shape[:2]
    tiles = []
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            part = pixels[y : y + TILE_PX, x : x + TILE_PX]
            missing = ((0, TILE_PX - part.shape[0]), (0, TILE_PX - part.shape[1]), (0, 0))
            whole = np.pad(part, missing, mode="edge")
            encoded = cv2.imencode(
                ".jpg",
                cv2.cvtColor(whole, cv2.COLOR_RGB2BGR),
                [
                    cv2.IMWRITE_JPEG_QUALITY,
                    JPEG_QUALITY,
                    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
                ],
            )[1]
            tiles.append(encoded.tobytes())
    return tiles


def _entries(
    level: _Level, offsets: list[int], sizes: list[int]
) -> list[tuple[int, int, list[int]]]:
    height, width = level.pixels.shape[:2]
    per_cm = [round(UM_PER_CM / level.mpp * 1000), 1000]
    return [
        (254, _LONG, [_REDUCED if level.reduced else 0]),
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8, 8, 8]),
        (259, _SHORT, [_JPEG]),
        (262, _SHORT, [_YCBCR]),
        (277, _SHORT, [3]),
        (282, _RATIONAL, per_cm),
        (283, _RATIONAL, per_cm),
        (284, _SHORT, [1]),
        (296, _SHORT, [_CENTIMETRE]),
        (322, _LONG, [TILE_PX]),
        (323, _LONG, [TILE_PX]),
        (324, _LONG, offsets),
        (325, _LONG, sizes),
        (530, _SHORT, [1, 1]),
    ]


def _entry_count(level: _Level) -> int:
    return len(_entries(level, [], []))


def _directory(at: int, level: _Level, offsets: list[int], sizes: list[int]) -> bytes:
    """Return one image file directory that starts at the file offset `at`, values behind it."""
    entries = _entries(level, offsets, sizes)
    behind = at + 2 + 12 * len(entries) + 4
    head, tail = [struct.pack("<H", len(entries))], b""
    for tag, kind, values in entries:
        packed = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        if len(packed) <= 4:
            field = packed.ljust(4, b"\0")
        else:
            field = struct.pack("<I", behind + len(tail))
            tail += packed + b"\0" * (len(packed) % 2)
        head.append(struct.pack("<HHI", tag, kind, count) + field)
    return b"".join(head) + struct.pack("<I", 0) + tail
