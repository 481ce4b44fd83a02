"""Extractors that torch runs: timm models, TorchScript programs, the user's own modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mil.types import UInt8Array
from edge_mil_export.errors import ExtractorError, first_line
from edge_mil_export.extractors.source import ExtractorSource

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class TorchExtractor(ExtractorSource):
    """A torch module from images to features.

    Attributes:
        module: float32 (n, 3, h, w) to features (n, d), in evaluation mode, on the CPU.
    """

    framework = "torch"
    module: nn.Module

    def run(self, tiles: UInt8Array) -> object:
        """Run the module on normalised tiles.

        Raises:
            ExtractorError: It does not take such tiles.
        """
        import torch

        planes = self.normalise(tiles)
        try:
            with torch.inference_mode():
                found = self.module(torch.from_numpy(planes))
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            shape = "x".join(str(side) for side in planes.shape)
            raise ExtractorError(
                f"{self.name} does not take tiles of {shape} ({first_line(error)}); check "
                "--tile-px, and that it takes float32 images (n, 3, h, w)."
            ) from error
        return found.numpy() if isinstance(found, torch.Tensor) else found
