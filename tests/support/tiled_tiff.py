"""Write a picture as a tiled TIFF, the plainest slide file that OpenSlide reads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from edge_mil.types import UInt8Array

TILE_PX = 256
SHORT, LONG, RATIONAL = 3, 4, 5
PER_CM, UM_PER_CM = 3, 10_000


def write_tiled_tiff(
    path: Path, pixels: UInt8Array, mpp: float | None = None, mpp_y: float | None = None
) -> Path:
    """Write RGB uint8 (h, w, 3), uncompressed, with or without a pixel size."""
    height, width = pixels.shape[:2]
    down, across = -(-height // TILE_PX), -(-width // TILE_PX)
    padded = np.zeros((down * TILE_PX, across * TILE_PX, 3), np.uint8)
    padded[:height, :width] = pixels
    tiles = padded.reshape(down, TILE_PX, across, TILE_PX, 3).swapaxes(1, 2).tobytes()
    size = TILE_PX * TILE_PX * 3
    offsets = [8 + size * n for n in range(down * across)]
    entries: list[tuple[int, int, list[int]]] = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [8, 8, 8]),
        (259, SHORT, [1]),
        (262, SHORT, [2]),
        (277, SHORT, [3]),
        (284, SHORT, [1]),
        (322, LONG, [TILE_PX]),
        (323, LONG, [TILE_PX]),
        (324, LONG, offsets),
        (325, LONG, [size] * len(offsets)),
    ]
    if mpp is not None:
        entries += [
            (282, RATIONAL, _resolution(mpp)),
            (283, RATIONAL, _resolution(mpp_y or mpp)),
            (296, SHORT, [PER_CM]),
        ]
    entries.sort()
    at = 8 + len(tiles)
    extra_at = at + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack("<H", len(entries)), b""
    for tag, kind, values in entries:
        code, count = {SHORT: "H", LONG: "I", RATIONAL: "I"}[kind], len(values)
        data = struct.pack(f"<{count}{code}", *values)
        if len(data) > 4:
            place = struct.pack("<I", extra_at + len(extra))
            extra += data
        else:
            place = data.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, count // (2 if kind == RATIONAL else 1)) + place
    path.write_bytes(b"II*\0" + struct.pack("<I", at) + tiles + directory + b"\0" * 4 + extra)
    return path


def _resolution(mpp: float) -> list[int]:
    return [round(UM_PER_CM / mpp * 1000), 1000]
