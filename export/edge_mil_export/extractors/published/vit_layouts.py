"""Bring the weights of a vision transformer to one set of names, whoever published them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.published.layouts import FoundNetwork, without_training_parts
from edge_mil_export.extractors.published.networks.vit import VitShape

SHOWN_KEYS = 3
BLOCK = re.compile(r"blocks\.(\d+)\.")
CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")
"""DINOv2 saves blocks in chunks for sharding: blocks.CHUNK.INDEX, INDEX through all chunks."""

PLAIN_NAMES: tuple[tuple[str, str], ...] = (
    (r"^(?:register_tokens|reg_token|storage_tokens)$", "registers"),
    (r"^pos_embed$", "positions"),
    (r"^patch_embed\.proj\.", "patch."),
    (r"\.attn\.qkv\.", ".qkv."),
    (r"\.attn\.proj\.", ".proj."),
    (r"\.mlp\.w12\.", ".fc1."),
    (r"\.mlp\.w1\.", ".gate."),
    (r"\.mlp\.w2\.", ".given."),
    (r"\.mlp\.w3\.", ".fc2."),
    (r"\.mlp\.fc1_g\.", ".gate."),
    (r"\.mlp\.fc1_x\.", ".given."),
    (r"\.mlp\.(fc[12])\.", r".\1."),
    (r"\.ls([12])\.gamma$", r".ls\1"),
    (r"\.gamma_([12])$", r".ls\1"),
    (r"^rope_embed\.periods$", "periods"),
)
"""timm, DINO, DINOv2 (w12 and w3) and DINOv3 (w1, w2 and w3; the gate is w1)."""
HF_NAMES: tuple[tuple[str, str], ...] = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "registers"),
    (r"^embeddings\.position_embeddings$", "positions"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch."),
    (r"^(?:encoder\.layer|model\.layer|layer)\.", "blocks."),
    (r"\.attention\.(?:attention\.)?(?:query|q_proj)\.", ".q."),
    (r"\.attention\.(?:attention\.)?(?:key|k_proj)\.", ".k."),
    (r"\.attention\.(?:attention\.)?(?:value|v_proj)\.", ".v."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.(?:intermediate\.dense|mlp\.weights_in|mlp\.fc1)\.", ".fc1."),
    (r"\.(?:output\.dense|mlp\.weights_out|mlp\.fc2|mlp\.down_proj)\.", ".fc2."),
    (r"\.mlp\.gate_proj\.", ".gate."),
    (r"\.mlp\.up_proj\.", ".given."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1"),
    (r"^layernorm\.", "norm."),
)
"""Hugging Face's ViTModel, Dinov2Model and DINOv3ViTModel."""
CLIP_HF_NAMES: tuple[tuple[str, str], ...] = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.patch_embedding\.", "patch."),
    (r"^embeddings\.position_embedding\.weight$", "positions"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.self_attn\.([qkv])_proj\.", r".\1."),
    (r"\.self_attn\.out_proj\.", ".proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.mlp\.(fc[12])\.", r".\1."),
)
"""Hugging Face's CLIPVisionModel, whose own spelling is pre_layrnorm."""
CLIP_NAMES: tuple[tuple[str, str], ...] = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "positions"),
    (r"^conv1\.", "patch."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "projection"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.attn\.in_proj_weight$", ".qkv.weight"),
    (r"\.attn\.in_proj_bias$", ".qkv.bias"),
    (r"\.attn\.out_proj\.", ".proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".fc1."),
    (r"\.mlp\.c_proj\.", ".fc2."),
)
"""CLIP's own classes, and open_clip's."""
NAMES = {
    "vit": PLAIN_NAMES,
    "vit-hf": HF_NAMES,
    "dinov3-hf": HF_NAMES,
    "clip-hf": CLIP_HF_NAMES,
    "clip": CLIP_NAMES,
}


@dataclass(frozen=True, slots=True, eq=False)
class VitWeights:
    """A transformer's weights under the names of `VisionTransformer`.

    Attributes:
        shape: What the keys and shapes tell.
        state: The weights of its layers.
        tokens: Class token and registers, (1, p, d); None without any.
        positions: Position embedding as the file holds it, (1, p, d); None where it is rotary.
        prefixes: How many of its entries may precede those of the patches.
        periods: Periods of rotary positions, as the file holds them.
        pooler: Weights of an attention pooling, by their names below the tower.
        left_out: Parts of the file that the feature does not need.
    """

    shape: VitShape
    state: dict[str, torch.Tensor]
    tokens: torch.Tensor | None
    positions: torch.Tensor | None
    prefixes: tuple[int, ...]
    periods: torch.Tensor | None = None
    pooler: dict[str, torch.Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def read_vit(found: FoundNetwork, *, file: str) -> VitWeights:
    """Return the weights of a transformer under common names.

    Args:
        found: The network, in one of the layouts of NAMES.
        file: Name of the file, for messages.

    Raises:
        ExtractorError: A weight is missing, or one is there that no reader knows.
    """
    given = found.state
    periods = given.get("rope_embed.periods")
    names = NAMES[found.layout]
    projection, pooler, beside = _beside(found)
    # In CLIP the image tower's own `transformer` and `positional_embedding` are meant.
    kept, dropped = (given, []) if found.layout == "clip" else without_training_parts(given)
    if found.layout == "vit" and all(CHUNK.match(key) for key in kept if key.startswith("blocks.")):
        kept = {CHUNK.sub(r"blocks.\1.", key): value for key, value in kept.items()}
    state = {_renamed(key, names): value for key, value in kept.items()}
    _join(state, file)
    has_class = "cls_token" in state
    tokens, prefixes = _take_tokens(state, is_hub=any(k.endswith("register_tokens") for k in given))
    positions = state.pop("positions", None)
    if projection is not None:
        state["projection"] = projection
    count = 0 if tokens is None else tokens.shape[1]
    shape = _shape(state, count, has_class=has_class, rotary=positions is None, file=file)
    _check(state, shape, file)
    if positions is not None and positions.ndim == 2:
        positions = positions[None]
    return VitWeights(
        shape,
        state,
        tokens,
        positions,
        prefixes,
        periods,
        pooler,
        tuple(dict.fromkeys([*dropped, *beside])),
    )


def _renamed(key: str, names: Sequence[tuple[str, str]]) -> str:
    for pattern, new in names:
        key = re.sub(pattern, new, key)
    return key


def _beside(
    found: FoundNetwork,
) -> tuple[torch.Tensor | None, dict[str, torch.Tensor], list[str]]:
    """Return the projection and the pooler that lie beside a tower, and the names of the rest."""
    rest, projection, pooler = dict(found.beside), None, {}
    if found.layout == "clip-hf":
        outside = found.prefix.removesuffix("vision_model.")
        weight = rest.pop(f"{outside}visual_projection.weight", None)
        projection = None if weight is None else weight.T.contiguous()
    elif found.layout == "vit" and found.prefix.endswith("trunk."):
        outside = found.prefix.removesuffix("trunk.")
        weight = rest.pop(f"{outside}head.proj.weight", None)
        projection = None if weight is None else weight.T.contiguous()
        for key in list(rest):
            name = key.removeprefix(outside)
            if name.split(".")[0] in ("attn_pool_contrast", "ln_contrast", "proj_contrast"):
                pooler[name] = rest.pop(key)
    parts = dict.fromkeys(
        ".".join(key.split(".")[:2]) if key.startswith("visual.") else key.split(".")[0]
        for key in rest
    )
    return projection, pooler, list(parts)


def _join(state: dict[str, torch.Tensor], file: str) -> None:
    """Join queries, keys and values, and the halves of a gated perceptron, in place."""
    for key in [key for key in state if key.endswith(".qkv.bias_mask")]:
        mask = state.pop(key)
        bias = key.removesuffix("_mask")
        # DINOv3 multiplies the keys' part of the bias by 0.
        state[bias] = torch.where(mask == 0, torch.zeros_like(mask), state[bias])
    for at in sorted({match[0] for key in state if (match := BLOCK.match(key))}):
        if f"{at}q.weight" in state:
            parts = {n: state.pop(f"{at}{n}.weight", None) for n in "qkv"}
            _whole(parts, at, file)
            state[f"{at}qkv.weight"] = torch.cat([w for w in parts.values() if w is not None])
            biases = {n: state.pop(f"{at}{n}.bias", None) for n in "qkv"}
            if any(bias is not None for bias in biases.values()):
                # DINOv3's keys have no bias.
                zeros = torch.zeros(state[f"{at}qkv.weight"].shape[1])
                state[f"{at}qkv.bias"] = torch.cat(
                    [zeros if bias is None else bias for bias in biases.values()]
                )
        for part in ("weight", "bias"):
            if f"{at}gate.{part}" in state:
                halves = {n: state.pop(f"{at}{n}.{part}", None) for n in ("gate", "given")}
                _whole(halves, at, file)
                state[f"{at}fc1.{part}"] = torch.cat([h for h in halves.values() if h is not None])
            elif f"{at}given.{part}" in state:
                # Hugging Face names an ungated first layer as the gated one's second half.
                state[f"{at}fc1.{part}"] = state.pop(f"{at}given.{part}")
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)


def _whole(parts: dict[str, torch.Tensor | None], at: str, file: str) -> None:
    missing = [name for name, value in parts.items() if value is None]
    if missing:
        raise ExtractorError(f"{file} is not whole: it lacks {missing[0]} of {at.rstrip('.')}.")


def _take_tokens(
    state: dict[str, torch.Tensor], *, is_hub: bool
) -> tuple[torch.Tensor | None, tuple[int, ...]]:
    """Take class and register tokens out; return them, and how many positions may be theirs."""
    tokens = [state.pop(name) for name in ("cls_token", "registers") if name in state]
    if not tokens:
        return None, (0,)
    joined = torch.cat(tokens, dim=1)
    # DINOv2's own registers have no position; timm's have one, or the class token has none either.
    return joined, (1,) if is_hub else (joined.shape[1], 0)


def _shape(
    state: dict[str, torch.Tensor], tokens: int, *, has_class: bool, rotary: bool, file: str
) -> VitShape:
    """Read the shape off the weights under common names."""
    indices = sorted({int(match[1]) for key in state if (match := BLOCK.match(key))})
    needed = ("patch.weight", "blocks.0.fc1.weight", "blocks.0.fc2.weight", "blocks.0.qkv.weight")
    missing = [key for key in needed if key not in state]
    if missing or indices != list(range(len(indices))):
        what = missing[0] if missing else f"one of the blocks 0 to {indices[-1]}"
        raise ExtractorError(f"{file} is no whole vision transformer: it lacks {what}.")
    width, _, height, wide = state["patch.weight"].shape
    hidden = state["blocks.0.fc2.weight"].shape[1]
    return VitShape(
        width=width,
        depth=len(indices),
        patch=(height, wide),
        hidden=hidden,
        gated=state["blocks.0.fc1.weight"].shape[0] == 2 * hidden,
        layer_scale="blocks.0.ls1" in state,
        qkv_bias="blocks.0.qkv.bias" in state,
        patch_bias="patch.bias" in state,
        pre_norm="norm_pre.weight" in state,
        registers=tokens - has_class,
        class_token=has_class,
        projection=state["projection"].shape[1] if "projection" in state else 0,
        rotary=rotary,
    )


def _check(state: dict[str, torch.Tensor], shape: VitShape, file: str) -> None:
    """Refuse weights that are missing, unknown or of another shape."""
    from edge_mil_export.extractors.published.networks.vit import VisionTransformer

    with torch.device("meta"):
        own = VisionTransformer(
            shape, heads=1, eps=1.0, activation="gelu", pooling="cls"
        ).state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    for what, keys in (
        ("lacks", missing),
        ("has beside it", unknown),
        ("has other shapes of", other),
    ):
        if keys:
            more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
            raise ExtractorError(
                f"{file} is no vision transformer that is read from its keys: it {what} "
                f"{', '.join(keys[:SHOWN_KEYS])}{more}; write a function that builds the model and "
                "use python:MODULE:FACTORY."
            )
