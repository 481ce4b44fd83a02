"""`torchscript:FILE`: a program that torch.jit saved, with its weights."""

from __future__ import annotations

import warnings
from pathlib import Path

from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.source import Normalisation
from edge_mil_export.extractors.torch_module import TorchExtractor


def open_torchscript(
    path: Path, tile_px: tuple[int, int], normalisation: Normalisation | None
) -> TorchExtractor:
    """Load a TorchScript file onto the CPU.

    Args:
        path: What torch.jit.save wrote.
        tile_px: Height and width of a tile.
        normalisation: None where the program takes 0 to 255.

    Raises:
        ExtractorError: The file is not there, or holds no TorchScript program.
    """
    import torch

    if not path.is_file():
        raise ExtractorError(f"There is no TorchScript file {path}; check the path.")
    try:
        with warnings.catch_warnings():
            # torch calls TorchScript deprecated at each load; users still have the files.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, EOFError) as error:
        raise ExtractorError(
            f"{path.name} is no TorchScript program (or was cut short); save it with "
            "torch.jit.save, or use timm: or python: for a state dict."
        ) from error
    return TorchExtractor(f"torchscript:{path.name}", tile_px, normalisation, module.float().eval())
