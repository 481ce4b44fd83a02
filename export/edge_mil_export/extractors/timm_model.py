"""`timm:NAME`: timm models by name, with weights from a file; nothing is downloaded."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mil.errors import UsageError
from edge_mil_export.checkpoints.loading import load_state_dict
from edge_mil_export.errors import ExtractorError, first_line
from edge_mil_export.extractors.source import Normalisation, parse_normalisation
from edge_mil_export.extractors.timm_import import import_timm
from edge_mil_export.extractors.torch_module import TorchExtractor

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN_KEYS = 3
COUNTER = "num_batches_tracked"
"""Counter of BatchNorm: used in training only, and often left out of files."""


def open_timm(
    name: str, weights: Path | None, tile_px: tuple[int, int], normalise: str | None
) -> TorchExtractor:
    """Build a timm model with `num_classes=0` and load its weights.

    Args:
        name: As timm names it, with or without a tag: resnet18, vit_small_patch16_224.dino.
        weights: The file; required.
        tile_px: Height and width of a tile; a ViT is built for it.
        normalise: As `--normalise` gives it; None takes the model's configuration.

    Raises:
        UsageError: No weights, or there is no such model.
        CheckpointError: The file cannot be read.
        ExtractorError: The file's keys are not the model's.
    """
    if weights is None:
        raise UsageError(
            f"timm:{name} needs --extractor-weights FILE; nothing is downloaded, so fetch the "
            "weights first (a .safetensors or .pth file)."
        )
    module = build(name, tile_px)
    load_weights(module, load_state_dict(weights), f"timm:{name}", weights.name)
    config: dict[str, Any] = dict(getattr(module, "pretrained_cfg", {}) or {})
    normalisation = (
        parse_normalisation(normalise)
        if normalise is not None
        else Normalisation(tuple(config["mean"]), tuple(config["std"]))
    )
    licence = str(config.get("license") or "")
    return TorchExtractor(f"timm:{name}", tile_px, normalisation, module.eval(), licence=licence)


def build(name: str, tile_px: tuple[int, int]) -> nn.Module:
    """Return a timm model without its classifier, with random weights.

    Raises:
        UsageError: There is no such model, or it cannot take such tiles.
    """
    timm = import_timm()
    if ":" in name or "/" in name:
        raise UsageError(
            f"timm:{name} is a place on a hub, and nothing is downloaded; name the architecture "
            "(as timm:vit_small_patch16_224) and give the file with --extractor-weights."
        )
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise UsageError(f"timm {timm.__version__} has no model {name}{hint}.")
    # num_classes=0 is a real model without a head, so the exported graph ends at the features.
    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    try:
        model: nn.Module = timm.create_model(name, **settings)
        wanted = getattr(getattr(model, "patch_embed", None), "img_size", None)
        if wanted is not None and tuple(wanted) != tile_px:
            model = timm.create_model(name, img_size=tile_px, **settings)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        size = f"{tile_px[0]}x{tile_px[1]}"
        raise UsageError(
            f"timm:{name} cannot be built for tiles of {size} ({first_line(error)}); "
            "check --tile-px."
        ) from error
    return model.eval()


def load_weights(module: nn.Module, state: dict[str, torch.Tensor], name: str, file: str) -> None:
    """Load a state dict; a classifier in the file is dropped, BatchNorm counters may be missing.

    Raises:
        ExtractorError: Other keys, or shapes, differ; the message names the first three.
    """
    config = getattr(module, "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    own = module.state_dict()
    kept = {
        key: tensor
        for key, tensor in state.items()
        if key in own or not key.startswith(tuple(f"{head}." for head in heads))
    }
    _fit_positions(module, kept)
    missing = [key for key in own if key not in kept and not key.endswith(COUNTER)]
    unknown = [key for key in kept if key not in own]
    shapes = [
        f"{key} {tuple(kept[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in kept and kept[key].shape != own[key].shape
    ]
    for what, keys in (("lacks", missing), ("has beside it", unknown), ("has", shapes)):
        if keys:
            more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
            raise ExtractorError(
                f"{file} is not a file of {name}: it {what} {', '.join(keys[:SHOWN_KEYS])}{more}; "
                "name the model that the weights were saved from."
            )
    module.load_state_dict(kept, strict=False)


def _fit_positions(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Bring a ViT's position embedding to the grid of this tile size, as timm's own loader does."""
    own, given = getattr(module, "pos_embed", None), state.get("pos_embed")
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if own is None or given is None or grid is None or own.shape == given.shape:
        return
    if given.ndim != 3 or given.shape[-1] != own.shape[-1]:
        return
    from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]

    prefix = 0 if getattr(module, "no_embed_class", False) else module.num_prefix_tokens
    state["pos_embed"] = resample_abs_pos_embed(
        given,
        new_size=list(grid),
        num_prefix_tokens=int(prefix),  # type: ignore[arg-type]
    )
