"""An extractor before its export: what computes its features, and how its images are normalised."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from edge_mil.errors import UsageError
from edge_mil.types import Float32Array, UInt8Array
from edge_mil_export.errors import ExtractorError

MAX_CHANNEL = 255.0


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of each colour, of 0 to 1, RGB."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ExtractorSource(ABC):
    """An extractor as its author saved it: tiles to features, the reference of every export.

    Attributes:
        name: As the command named it: "timm:resnet18".
        tile_px: Height and width of a tile.
        normalisation: None where the network takes 0 to 255 and normalises by itself.
        licence: Terms of the weights as their source states them; "" when it does not.
        facts: What was read from the file and what was settled beside it, for the model card.
        left_out: Parts of the file that the features do not need.
        framework: What computes the features, for the fidelity report.
    """

    framework: ClassVar[str]
    name: str
    tile_px: tuple[int, int]
    normalisation: Normalisation | None
    licence: str = field(default="", kw_only=True)
    facts: tuple[str, ...] = field(default=(), kw_only=True)
    left_out: tuple[str, ...] = field(default=(), kw_only=True)

    def normalise(self, tiles: UInt8Array) -> Float32Array:
        """Return tiles (n, h, w, 3) as the network takes them: float32 (n, 3, h, w)."""
        planes = np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)).astype(np.float32)
        if self.normalisation is None:
            return planes
        mean = np.array(self.normalisation.mean, np.float32).reshape(1, 3, 1, 1)
        std = np.array(self.normalisation.std, np.float32).reshape(1, 3, 1, 1)
        normal: Float32Array = (planes / np.float32(MAX_CHANNEL) - mean) / std
        return normal

    def features(self, tiles: UInt8Array) -> Float32Array:
        """Compute the features (n, d) that every export is compared with.

        Raises:
            ExtractorError: The network does not take such tiles, or gives no features.
        """
        return checked_features(self.run(tiles), len(tiles), self.name)

    @abstractmethod
    def run(self, tiles: UInt8Array) -> object:
        """Return what the network gives for tiles uint8 (n, h, w, 3), unchecked."""


def checked_features(found: object, count: int, name: str) -> Float32Array:
    """Return features (n, d); trailing axes of 1 are dropped.

    Raises:
        ExtractorError: They have another shape, or are not finite.
    """
    if not isinstance(found, np.ndarray) or found.ndim < 2 or found.shape[0] != count:
        what = f"shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise ExtractorError(
            f"{name} gives {what} for {count} tiles, and an extractor gives one feature vector per "
            "tile, (n, d); wrap it so that it returns those."
        )
    if any(side != 1 for side in found.shape[2:]):
        raise ExtractorError(
            f"{name} gives features of shape {found.shape}, not (n, d): its pooling is missing; "
            "export it with the pooling."
        )
    features: Float32Array = found.reshape(found.shape[:2]).astype(np.float32, copy=False)
    if not np.isfinite(features).all():
        raise ExtractorError(
            f"{name} gives features that are NaN or infinite, so its weights are damaged or its "
            "normalisation is wrong; check the file and --normalise."
        )
    return features


def parse_normalisation(text: str) -> Normalisation | None:
    """Read `--normalise`: R,G,B/R,G,B (mean / standard deviation, of 0 to 1), or none.

    Raises:
        UsageError: It is neither.
    """
    if text.strip().lower() == "none":
        return None
    parts = text.split("/")
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in parts)
    except ValueError:
        mean = std = ()
    finite = all(math.isfinite(number) for number in (*mean, *std))
    if len(mean) != 3 or len(std) != 3 or not finite or min(std) <= 0:
        raise UsageError(
            f"--normalise {text} is not R,G,B/R,G,B, mean and standard deviation of 0 to 1 (as "
            "0.485,0.456,0.406/0.229,0.224,0.225), nor none for a file that normalises by itself."
        )
    return Normalisation(mean, std)
