"""Build a vision transformer from its weights: ask what they do not tell, place the positions."""

from __future__ import annotations

import torch

from edge_mil.errors import UsageError
from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.options import INTERPOLATIONS
from edge_mil_export.extractors.published.networks.attention_pool import AttentionPool
from edge_mil_export.extractors.published.networks.positions import (
    interpolate_positions,
    split_positions,
)
from edge_mil_export.extractors.published.networks.vit import (
    VisionTransformer,
    VitShape,
    rotary_turns,
)
from edge_mil_export.extractors.published.presets import presets_like
from edge_mil_export.extractors.published.questions import (
    Facts,
    activation_choices,
    check_heads,
    check_pooling,
    heads_choices,
)
from edge_mil_export.extractors.published.request import BuiltNetwork, PublishedFile
from edge_mil_export.extractors.published.vit_layouts import VitWeights

POOLER_HEADS = 8
"""Of CoCa's pooler. Source: mlfoundations/open_clip, transformer.py, AttentionalPooler (n_head=8),
which mahmoodlab/CONCH takes over."""
ROPE_THETA = 100.0
"""Base of DINOv3's rotary periods. Source: facebookresearch/dinov3, dinov3/hub/backbones.py."""
EPS_CHOICES = "1e-6 in timm, DINO and DINOv2, 1e-5 in CLIP and DINOv3, 1e-12 in Hugging Face's ViT"


def build_vit(weights: VitWeights, facts: Facts, request: PublishedFile, file: str) -> BuiltNetwork:
    """Return the network of a transformer's weights.

    Args:
        weights: Under common names.
        facts: What is known beside them; what was needed is noted there.
        request: What the command says.
        file: Name of the file, for messages.

    Raises:
        UsageError: A fact is missing or impossible, or the tiles have another size.
        ExtractorError: The position embedding is missing or fits no grid.
    """
    shape = weights.shape
    grid = _grid(shape, request.tile_px, file)
    _refuse_other_model(shape, request, file)
    # 1. Everything that the file does not tell, asked for at once.
    poolings = _poolings(weights)
    heads = _heads(weights, facts)
    eps = facts.need("norm_eps", EPS_CHOICES)
    activation = "silu" if shape.gated else facts.need("activation", activation_choices())
    pooling = facts.need("pooling", ", ".join(poolings))
    positions = None
    if weights.positions is not None:
        positions = split_positions(weights.positions, weights.prefixes, grid, file=file)
    rule: object = "none"
    if positions is not None and positions.grid != grid:
        choices = (
            f"{', '.join(INTERPOLATIONS[:-1])}, for {_shown(positions.grid)} to {_shown(grid)}"
        )
        rule = facts.need("interpolation", choices)
    like = presets_like(shape.width, shape.depth, shape.patch[0], shape.registers)
    hint = f", or use its preset where it is one of {', '.join(like)}" if like else ""
    facts.ask_all(f"{file}, a {shape.describe()},", hint)
    if positions is not None and positions.grid != grid and rule == "none":
        raise UsageError(
            f"{file} has positions for {_shown(positions.grid)} patches, and tiles of this size "
            f"have {_shown(grid)}; give --tile-px {positions.grid[1] * shape.patch[1]}x"
            f"{positions.grid[0] * shape.patch[0]}, or another interpolation than none."
        )
    # 2. The network, with these weights and no others in memory.
    pooling = check_pooling(pooling, poolings, file=file)
    heads = check_heads(heads, shape.width, file=file)
    with torch.device("meta"):
        module = VisionTransformer(
            shape,
            heads=heads,
            eps=float(str(eps)),
            activation=str(activation),
            pooling=pooling,
        )
    module.load_state_dict(weights.state, assign=True)
    if positions is not None:
        module.positions = interpolate_positions(positions, grid, str(rule))
    module.prefix = _prefix(weights, None if positions is None else positions.prefix)
    if positions is None:
        module.turns = rotary_turns(_periods(weights, facts, heads, file), grid)
    left_out = list(weights.left_out)
    if weights.pooler and (pooling == "attention" or not shape.projection):
        left_out += _pool(module, weights, facts, pooling, file)
    return BuiltNetwork(module, shape.describe(), tuple(left_out))


def _grid(shape: VitShape, tile_px: tuple[int, int], file: str) -> tuple[int, int]:
    (height, width), (patch_h, patch_w) = tile_px, shape.patch
    if height % patch_h or width % patch_w:
        raise UsageError(
            f"Tiles of {width}x{height} px are no whole number of {file}'s patches of "
            f"{patch_w}x{patch_h} px; give another --tile-px."
        )
    return height // patch_h, width // patch_w


def _refuse_other_model(shape: VitShape, request: PublishedFile, file: str) -> None:
    """Refuse a preset for a file of another size; a user who names the heads means it."""
    preset = request.preset
    if preset is None or not preset.width or request.options.num_heads is not None:
        return
    wanted = (preset.width, preset.depth, preset.patch, preset.registers)
    if (shape.width, shape.depth, shape.patch[0], shape.registers) != wanted:
        raise UsageError(
            f"{file} is a {shape.describe()}, and {preset.family} is {preset.width} wide with "
            f"{preset.depth} blocks, patches of {preset.patch} px and {preset.registers} "
            "registers; name another preset, or --extractor-option num_heads= where a smaller "
            "relative is meant."
        )


def _poolings(weights: VitWeights) -> list[str]:
    """Return how the tokens of this file can be pooled."""
    shape = weights.shape
    if shape.pre_norm and not weights.pooler:
        # CLIP norms the class token alone after the last block.
        return ["cls", *(["projected"] if shape.projection else [])]
    found = ["cls", "cls_patch_mean"] if shape.class_token else []
    found += ["patch_mean", "token_mean"]
    if shape.projection or "proj_contrast" in weights.pooler:
        found.append("projected")
    return [*found, "attention"] if weights.pooler else found


def _heads(weights: VitWeights, facts: Facts) -> object | None:
    """Return the number of heads: DINOv3's periods give it away, else it is asked for."""
    if weights.periods is not None:
        # A quarter of a head's width has a period.
        heads = weights.shape.width // (4 * len(weights.periods))
        facts.used["num_heads"] = f"{heads} (rope_embed.periods)"
        return heads
    return facts.need("num_heads", heads_choices(weights.shape.width))


def _periods(weights: VitWeights, facts: Facts, heads: int, file: str) -> torch.Tensor:
    if weights.periods is not None:
        return weights.periods
    quarter = weights.shape.width // heads // 4
    if weights.shape.qkv_bias and not weights.shape.registers:
        raise ExtractorError(f"{file} is not whole: it lacks its position embedding.")
    known = (source.get("rope_theta") for source in facts.sources.values())
    theta = next((float(str(value)) for value in known if value is not None), ROPE_THETA)
    facts.used["rope_theta"] = f"{theta:g}"
    periods: torch.Tensor = theta ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    return periods


def _prefix(weights: VitWeights, positions: torch.Tensor | None) -> torch.Tensor | None:
    """Return class and register tokens with their positions added, (1, p, d)."""
    if weights.tokens is None:
        return None
    made = weights.tokens.clone()
    if positions is not None and positions.shape[1]:
        made[:, : positions.shape[1]] += positions
    return made


def _pool(
    module: VisionTransformer, weights: VitWeights, facts: Facts, pooling: str, file: str
) -> list[str]:
    """Put the attention pooling in where it is meant; return what is left out of it."""
    if pooling not in ("attention", "projected"):
        return ["attn_pool_contrast", "ln_contrast", "proj_contrast"]
    given = facts.options.pooler_heads
    width = weights.pooler["attn_pool_contrast.query"].shape[1]
    heads = check_heads(given or POOLER_HEADS, width, file=file, name="pooler_heads")
    facts.used["pooler_heads"] = f"{heads} ({'option' if given else 'of every CoCa pooler'})"
    module.pool = AttentionPool(weights.pooler, heads, projected=pooling == "projected")
    return [] if pooling == "projected" else ["proj_contrast"]


def _shown(grid: tuple[int, int]) -> str:
    return f"{grid[1]}x{grid[0]}"
