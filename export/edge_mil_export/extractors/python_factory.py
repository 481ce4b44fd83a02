"""`python:MODULE:FACTORY`: a function in the user's own module that returns the extractor."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from edge_mil.errors import UsageError
from edge_mil_export.checkpoints.loading import load_state_dict
from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.source import Normalisation
from edge_mil_export.extractors.timm_import import import_torchvision
from edge_mil_export.extractors.timm_model import load_weights
from edge_mil_export.extractors.torch_module import TorchExtractor


def open_factory(
    where: str, weights: Path | None, tile_px: tuple[int, int], normalisation: Normalisation | None
) -> TorchExtractor:
    """Call the factory without arguments; it returns a torch module from (n, 3, h, w) to (n, d).

    The module is looked for in the current directory first, then where Python looks.

    Args:
        where: MODULE:FACTORY; the module may be dotted.
        weights: A state dict to load into what the factory makes; None when it loads its own.
        tile_px: Height and width of a tile.
        normalisation: None where the module takes 0 to 255.

    Raises:
        UsageError: The module or the factory is not there.
        ExtractorError: The factory makes no torch module, or the weights do not fit it.
    """
    import_torchvision()
    from torch import nn

    name, _, attribute = where.partition(":")
    if not name or not attribute:
        raise UsageError(f"--extractor python:{where} is not python:MODULE:FACTORY.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"The module {name} cannot be imported from {here} ({error}); run the export from the "
            "folder that holds it."
        ) from error
    factory = getattr(found, attribute, None)
    if not callable(factory):
        raise UsageError(f"{name} has no function {attribute}; name one that returns the module.")
    module = factory()
    if not isinstance(module, nn.Module):
        raise ExtractorError(
            f"{where} returned a {type(module).__name__}, and it must return a torch.nn.Module."
        )
    if weights is not None:
        load_weights(module, load_state_dict(weights), f"python:{where}", weights.name)
    module = module.to("cpu").float().eval()
    return TorchExtractor(f"python:{where}", tile_px, normalisation, module)
