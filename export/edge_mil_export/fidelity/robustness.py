"""Measure how far named faults of a camera move the scores of a bundle: its fragility.

Between two cameras lie white balance, gamma, sharpness, noise and compression. A head whose score
moves far under faults that nobody sees is a lottery, and its users must know it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np

from edge_mil.types import Float32Array, UInt8Array
from edge_mil_export.agreement import Agreement, BagScorer, compare
from edge_mil_export.fidelity.bags import Bag
from edge_mil_export.progress import progress
from edge_mil_export.tiles import spread

MAX_TILES = 192
"""Tiles of all bags together under each fault: twelve faults then cost what INT8's search does."""
LEAST_BAG_TILES = 4
BATCH = 8
FULL = 255.0

Fault: TypeAlias = Callable[[UInt8Array], UInt8Array]


def _gains(red: float, green: float, blue: float) -> Fault:
    gains = np.array([red, green, blue], np.float32)
    return lambda tile: _levels(tile * gains)


def _gamma(exponent: float) -> Fault:
    return lambda tile: _levels((tile.astype(np.float32) / FULL) ** exponent * FULL)


def _blur(sigma_px: float) -> Fault:
    return lambda tile: np.asarray(cv2.GaussianBlur(tile, (0, 0), sigma_px), np.uint8)


def _sharpen(strength: float) -> Fault:
    def sharpened(tile: UInt8Array) -> UInt8Array:
        levels = tile.astype(np.float32)
        return _levels(levels + strength * (levels - cv2.GaussianBlur(levels, (0, 0), 1.5)))

    return sharpened


def _noise(deviation: float) -> Fault:
    def noisy(tile: UInt8Array) -> UInt8Array:
        # The same noise on every tile: the figures are the same at every export.
        added = np.random.default_rng(0).normal(0, deviation, tile.shape).astype(np.float32)
        return _levels(tile.astype(np.float32) + added)

    return noisy


def _jpeg(quality: int) -> Fault:
    def compressed(tile: UInt8Array) -> UInt8Array:
        _, data = cv2.imencode(".jpg", tile[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded one line above
        return np.ascontiguousarray(decoded[:, :, ::-1], np.uint8)

    return compressed


def _scale(factor: float) -> Fault:
    """Return the fault of a pixel size that is off: the middle stays where it is."""

    def scaled(tile: UInt8Array) -> UInt8Array:
        height, width = tile.shape[:2]
        centre = ((width - 1) / 2, (height - 1) / 2)
        turn = cv2.getRotationMatrix2D(centre, 0.0, factor)
        out = cv2.warpAffine(tile, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(out, np.uint8)

    return scaled


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "white balance, red +5 %": _gains(1.05, 1.0, 1.0),
        "white balance, blue -10 %": _gains(1.0, 1.0, 0.9),
        "gamma 0.9": _gamma(0.9),
        "gamma 1.1": _gamma(1.1),
        "blur, sigma 0.7 px": _blur(0.7),
        "blur, sigma 1.2 px": _blur(1.2),
        "sharpening 0.5": _sharpen(0.5),
        "noise, 1 grey level": _noise(1.0),
        "noise, 4 grey levels": _noise(4.0),
        "JPEG, quality 75": _jpeg(75),
        "scale -5 %": _scale(0.95),
        "scale +5 %": _scale(1.05),
    }
)
"""Name -> what it does to a tile, RGB uint8 (h, w, 3)."""


def measure_robustness(
    extract: Callable[[UInt8Array], Float32Array], scorer: BagScorer, bags: Sequence[Bag]
) -> dict[str, Agreement]:
    """Compare the scores of bags under each fault with those of the same bags without it.

    Args:
        extract: Features (n, d) of tiles, by the FP32 graph.
        scorer: The bundle's head.
        bags: Those of the fidelity report; of many tiles some.
    """
    share = max(LEAST_BAG_TILES, MAX_TILES // max(1, len(bags)))
    tiles = [bag.tiles[spread(len(bag.tiles), share)] for bag in bags]
    reference = [_features(extract, one) for one in tiles]
    found = {}
    for name in progress(list(FAULTS), "camera faults", "fault"):
        fault = FAULTS[name]
        moved = [_features(extract, np.stack([fault(tile) for tile in one])) for one in tiles]
        found[name] = compare(reference, moved, scorer)
    return found


def _features(extract: Callable[[UInt8Array], Float32Array], tiles: UInt8Array) -> Float32Array:
    return np.concatenate([extract(tiles[k : k + BATCH]) for k in range(0, len(tiles), BATCH)])


def _levels(levels: Float32Array) -> UInt8Array:
    return np.clip(np.rint(levels), 0, FULL).astype(np.uint8)
