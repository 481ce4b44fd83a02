"""What the command says of a published file, and what was built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mil_export.extractors.options import ExtractorOptions
from edge_mil_export.extractors.published.preset_table import Preset

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """What the command says of a file in its authors' layout.

    Attributes:
        path: The file, or a folder that holds it.
        name: As the command named the extractor: "checkpoint:uni.bin".
        tile_px: Height and width of a tile.
        options: What the file cannot tell.
        normalise: As `--normalise` gives it; None where the user gave none.
        preset: What settles the rest; None without.
        known: Further facts, by their source.
    """

    path: Path
    name: str
    tile_px: tuple[int, int]
    options: ExtractorOptions
    normalise: str | None
    preset: Preset | None = None
    known: Mapping[str, Mapping[str, object]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BuiltNetwork:
    """A network with its weights.

    Attributes:
        module: float32 (n, 3, h, w) to features (n, d).
        words: Its shape, for people.
        left_out: Parts of the file that the features do not need.
    """

    module: nn.Module
    words: str
    left_out: tuple[str, ...]
