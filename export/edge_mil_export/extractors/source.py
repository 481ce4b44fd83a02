"""An extractor before it is exported: what computes its features, and what is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_mil.errors import UsageError
from edge_mil.types import Float32Array, UInt8Array
from edge_mil_export.errors import ExtractorError

if TYPE_CHECKING:
    import onnx
    from torch import nn

MAX_CHANNEL = 255.0


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of each colour, of 0 to 1, RGB."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ExtractorSource:
    """An extractor as its author saved it; exactly one of `module` and `model` is there.

    Attributes:
        name: As the command named it: "timm:resnet18".
        tile_px: Height and width of a tile.
        normalisation: None where the network takes 0 to 255 and normalises by itself.
        module: Float32 (n, 3, h, w) to features (n, d), in evaluation mode, on the CPU.
        model: The same as an ONNX model; or one that takes uint8 (n, h, w, 3) itself.
        licence: Terms of the weights as their source states them; "" when it does not.
    """

    name: str
    tile_px: tuple[int, int]
    normalisation: Normalisation | None
    module: nn.Module | None = None
    model: onnx.ModelProto | None = None
    licence: str = ""

    @property
    def framework(self) -> str:
        """What computes the reference: torch, or the file itself in ONNX Runtime."""
        return "torch" if self.module is not None else "the ONNX file"

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
        if self.model is not None:
            from edge_mil_export.extractors.onnx_file import run_source

            found = run_source(self.model, tiles, self)
        else:
            assert self.module is not None
            found = _run_module(self.module, self.normalise(tiles), self.name)
        return checked_features(found, len(tiles), self.name)


def _run_module(module: nn.Module, planes: Float32Array, name: str) -> object:
    import torch

    try:
        with torch.inference_mode():
            found = module(torch.from_numpy(planes))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        shape = "x".join(str(side) for side in planes.shape)
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ExtractorError(
            f"{name} does not take tiles of {shape} ({line}); check --tile-px, and that it takes "
            "float32 images (n, 3, h, w)."
        ) from error
    return found.numpy() if isinstance(found, torch.Tensor) else found


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
