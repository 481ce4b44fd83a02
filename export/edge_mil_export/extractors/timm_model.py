"""`timm:NAME`: timm models by name, with weights from a file; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mil.errors import UsageError
from edge_mil_export.checkpoints.loading import load_checkpoint
from edge_mil_export.errors import ExtractorError, first_line
from edge_mil_export.extractors.options import ExtractorOptions
from edge_mil_export.extractors.source import ExtractorSource, Normalisation, parse_normalisation
from edge_mil_export.extractors.timm_import import import_timm
from edge_mil_export.extractors.timm_names import check_timm_name
from edge_mil_export.extractors.torch_module import TorchExtractor
from edge_mil_export.extractors.weights_licence import licence_beside

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN_KEYS = 3
COUNTER = "num_batches_tracked"
"""Counter of BatchNorm: used in training only, and often left out of files."""


def open_timm(
    name: str,
    weights: Path,
    tile_px: tuple[int, int],
    normalise: str | None,
    options: ExtractorOptions,
) -> ExtractorSource:
    """Build a timm model with `num_classes=0` and load its weights.

    A vision transformer is read as its authors publish it, and the name settles only what timm
    says of the architecture: heads, norm, activation, pooling.

    Args:
        name: As timm names it, with or without a tag: resnet18, vit_small_patch16_224.dino.
        weights: The file, or a folder that holds it.
        tile_px: Height and width of a tile; a ViT is built for it.
        normalise: As `--normalise` gives it; None takes timm's configuration, where all weights
            that timm has under this name agree on it.
        options: What neither file nor name tells.

    Raises:
        UsageError: There is no such model, or a fact is missing.
        CheckpointError: The file cannot be read.
        ExtractorError: The file's keys are not the model's.
    """
    import torch

    from edge_mil_export.extractors.published.config_files import weights_of

    weights = weights_of(weights)
    normalisation = None if normalise is not None else _configured(name)
    with torch.device("meta"):
        facts = _transformer_facts(build(name, tile_px))
    if facts is not None:
        return _open_transformer(name, weights, tile_px, normalise, options, (facts, normalisation))
    if normalise is None and normalisation is None:
        raise UsageError(_disagreeing(name))
    checkpoint = load_checkpoint(weights, weights=options.weights)
    module = build(name, tile_px)
    left_out = load_weights(
        module,
        checkpoint.state,
        f"timm:{name}",
        weights.name,
        interpolation=options.interpolation,
    )
    if normalise is not None:
        normalisation = parse_normalisation(normalise)
    return TorchExtractor(
        f"timm:{name}",
        tile_px,
        normalisation,
        module.eval(),
        licence=licence_beside(weights),
        facts=(
            f"mean and standard deviation by {'timm' if normalise is None else '--normalise'}",
            *([f"weights {checkpoint.weights} (option)"] if checkpoint.weights else []),
        ),
        left_out=(*checkpoint.left_out, *left_out),
    )


def build(name: str, tile_px: tuple[int, int]) -> nn.Module:
    """Return a timm model without its classifier, with random weights.

    Raises:
        UsageError: There is no such model, or it cannot take such tiles.
    """
    check_timm_name(name)
    timm = import_timm()
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


def load_weights(
    module: nn.Module,
    state: dict[str, torch.Tensor],
    name: str,
    file: str,
    *,
    interpolation: str | None = None,
) -> list[str]:
    """Load a state dict; a classifier in the file is dropped, BatchNorm counters may be missing.

    Args:
        module: What the weights are for.
        state: From `load_checkpoint`.
        name: Of the module, for messages.
        file: Name of the file.
        interpolation: Rule for a position embedding of another grid; only timm's is known here.

    Returns:
        Names of the parts that were dropped.

    Raises:
        ExtractorError: Other keys, or shapes, differ; the message names the first three.
        UsageError: The position embedding has another grid and no rule is named.
    """
    from edge_mil_export.extractors.published.layouts import first_names

    config = getattr(module, "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    own = module.state_dict()
    state = _without_prefix(state, own, file)
    kept = {
        key: tensor
        for key, tensor in state.items()
        if key in own or not key.startswith(tuple(f"{head}." for head in heads))
    }
    _fit_positions(module, kept, file, interpolation)
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
                "name the model that the weights were saved from, or read it by its keys with "
                "--extractor checkpoint:FILE."
            )
    module.load_state_dict(kept, strict=False)
    return first_names([key for key in state if key not in kept])


def _without_prefix(
    state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], file: str
) -> dict[str, torch.Tensor]:
    """Take the network out of a prefix such as `backbone.`, where no key fits as it is."""
    from edge_mil_export.extractors.published.layouts import find_network, without_training_parts

    if any(key in own for key in state):
        return state
    try:
        found = find_network(state, file=file)
    except ExtractorError:
        return state
    inside, _ = without_training_parts(found.state)
    return inside if all(key in own for key in inside) else state


def _fit_positions(
    module: nn.Module, state: dict[str, torch.Tensor], file: str, rule: str | None
) -> None:
    """Bring a position embedding to the grid of this tile size, where timm's rule is meant."""
    own, given = getattr(module, "pos_embed", None), state.get("pos_embed")
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if own is None or given is None or grid is None or own.shape == given.shape:
        return
    if given.ndim != 3 or given.shape[-1] != own.shape[-1]:
        return
    if rule != "timm":
        raise UsageError(
            f"The position embedding of {file} is for another tile size; name --extractor-option "
            "interpolation=timm where its authors bring it to this one as timm does, or give the "
            "--tile-px of the file."
        )
    from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]

    prefix = 0 if getattr(module, "no_embed_class", False) else module.num_prefix_tokens
    state["pos_embed"] = resample_abs_pos_embed(
        given,
        new_size=list(grid),
        num_prefix_tokens=int(prefix),  # type: ignore[arg-type]
    )


def _open_transformer(
    name: str,
    weights: Path,
    tile_px: tuple[int, int],
    normalise: str | None,
    options: ExtractorOptions,
    known: tuple[dict[str, object], Normalisation | None],
) -> ExtractorSource:
    """Read the file as its authors publish it, with the facts that the name settles."""
    from edge_mil_export.extractors.published.opening import open_published
    from edge_mil_export.extractors.published.request import PublishedFile

    facts, normalisation = dict(known[0]), known[1]
    shape = facts.pop("shape")
    if normalisation is not None:
        facts["normalisation"] = normalisation
    request = PublishedFile(
        weights, f"timm:{name}", tile_px, options, normalise, known={f"timm's {name}": facts}
    )
    return open_published(request, shape=shape)  # type: ignore[arg-type]


def _transformer_facts(model: nn.Module) -> dict[str, object] | None:
    """Return what timm's name says of a plain vision transformer; None for other models."""
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    if type(model) is not VisionTransformer or model.pos_embed is None:
        return None
    poolings = {"token": "cls", "avg": "patch_mean"}
    block: Any = model.blocks[0]
    activations = {"GELU": "gelu", "QuickGELU": "quick_gelu", "SiLU": "silu"}
    activation = activations.get(type(block.mlp.act).__name__)
    is_plain = (
        model.global_pool in poolings
        and isinstance(model.norm, nn.LayerNorm)
        and isinstance(model.fc_norm, nn.Identity)
        and isinstance(block.attn.q_norm, nn.Identity)
        and activation is not None
    )
    if not is_plain:
        return None
    return {
        "shape": (model.embed_dim, len(model.blocks)),
        "num_heads": block.attn.num_heads,
        "norm_eps": model.norm.eps,
        "activation": activation,
        "pooling": poolings[str(model.global_pool)],
    }


def _configured(name: str) -> Normalisation | None:
    """Return timm's mean and standard deviation of a name; None where its weights disagree."""
    timm = import_timm()
    plain, _, tag = name.partition(".")
    names = [name] if tag else [plain, *timm.list_pretrained(f"{plain}.*")]
    found = set()
    for known in names:
        config = timm.get_pretrained_cfg(known)
        if config is not None and config.mean and config.std:
            found.add(Normalisation(tuple(config.mean), tuple(config.std)))
    return found.pop() if len(found) == 1 else None


def _disagreeing(name: str) -> str:
    return (
        f"timm has weights of {name} with several means and standard deviations, so the name does "
        "not settle those of the file; name --normalise R,G,B/R,G,B (ImageNet's are "
        "0.485,0.456,0.406/0.229,0.224,0.225), or the tag of the weights, as NAME.TAG."
    )
