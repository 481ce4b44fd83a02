"""Small transformers of timm, and the same weights in the layouts of other authors."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

WIDTH, DEPTH, HEADS, PATCH, TILE_PX, HIDDEN = 32, 3, 4, 8, 32, 64
SEED = 3

State = dict[str, Any]


def timm_vit(**options: Any) -> Any:
    """Return a small vision transformer of timm with rough weights, in evaluation mode."""
    import torch
    from edge_mil_export.extractors.timm_import import import_timm
    from torch import nn

    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    settings: dict[str, Any] = {
        "img_size": TILE_PX,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": HIDDEN / WIDTH,
        "num_classes": 0,
        "global_pool": "token",
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }
    model = VisionTransformer(**{**settings, **options})
    rough(model, torch.Generator().manual_seed(SEED))
    return model.eval()


def timm_dinov3() -> Any:
    """Return a small DINOv3 of timm with rough weights, in evaluation mode."""
    import torch
    from edge_mil_export.extractors.timm_import import import_timm
    from torch import nn

    import_timm()
    from timm.models.eva import Eva

    model = Eva(
        img_size=TILE_PX,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=2,
        mlp_ratio=HIDDEN / WIDTH,
        qkv_bias=False,
        init_values=1e-5,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        use_fc_norm=False,
        num_classes=0,
        global_pool="token",
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )
    rough(model, torch.Generator().manual_seed(SEED))
    return model.eval()


def rough(model: Any, maker: Any) -> None:
    """Draw every weight, so that no part of the network is silent or the identity."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=maker) * 0.3
            weight.copy_(drawn + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def renamed(state: State, names: list[tuple[str, str]]) -> State:
    """Return the weights under other names."""
    made = {}
    for key, value in state.items():
        for pattern, new in names:
            key = re.sub(pattern, new, key)
        made[key] = value
    return made


def split_qkv(state: State, name: Callable[[str], str]) -> State:
    """Return the weights with queries, keys and values apart; `name` names a part of qkv."""
    made: State = {}
    for key, value in state.items():
        if ".attn.qkv." not in key:
            made[key] = value
            continue
        for letter, part in zip("qkv", value.chunk(3), strict=True):
            made[key.replace("attn.qkv", name(letter))] = part.clone()
    return made


def hugging_face_vit(state: State) -> State:
    """Return a plain timm transformer as Hugging Face's ViTModel names it."""
    words = {"q": "query", "k": "key", "v": "value"}
    state = split_qkv(state, lambda letter: f"attention.attention.{words[letter]}")
    return renamed(
        state,
        [
            (r"^cls_token$", "embeddings.cls_token"),
            (r"^pos_embed$", "embeddings.position_embeddings"),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
            (r"attn\.proj", "attention.output.dense"),
            (r"\.norm1\.", ".layernorm_before."),
            (r"\.norm2\.", ".layernorm_after."),
            (r"mlp\.fc1", "intermediate.dense"),
            (r"mlp\.fc2", "output.dense"),
            (r"^norm\.", "layernorm."),
            (r"^blocks\.", "encoder.layer."),
        ],
    )


def hugging_face_dinov2(state: State) -> State:
    """Return a timm transformer with layer scale as Hugging Face's Dinov2Model names it."""
    words = {"q": "query", "k": "key", "v": "value"}
    state = split_qkv(state, lambda letter: f"attention.attention.{words[letter]}")
    return renamed(
        state,
        [
            (r"^cls_token$", "embeddings.cls_token"),
            (r"^pos_embed$", "embeddings.position_embeddings"),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
            (r"attn\.proj", "attention.output.dense"),
            (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
            (r"^norm\.", "layernorm."),
            (r"^blocks\.", "encoder.layer."),
        ],
    )


def chunked(state: State) -> State:
    """Return the weights with blocks in chunks of two, as DINOv2's training saves them."""
    return {
        re.sub(r"^blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}.", key): value
        for key, value in state.items()
    }


def open_clip(state: State) -> State:
    """Return a timm transformer with a norm before its blocks as open_clip names it."""
    state = renamed(
        state,
        [
            (r"^cls_token$", "class_embedding"),
            (r"^pos_embed$", "positional_embedding"),
            (r"^patch_embed\.proj", "conv1"),
            (r"^norm_pre\.", "ln_pre."),
            (r"^norm\.", "ln_post."),
            (r"\.norm([12])\.", r".ln_\1."),
            (r"attn\.qkv\.", "attn.in_proj_"),
            (r"attn\.proj", "attn.out_proj"),
            (r"mlp\.fc1", "mlp.c_fc"),
            (r"mlp\.fc2", "mlp.c_proj"),
            (r"^blocks\.", "transformer.resblocks."),
        ],
    )
    state["class_embedding"] = state["class_embedding"].reshape(-1)
    state["positional_embedding"] = state["positional_embedding"][0]
    return {f"visual.{key}": value for key, value in state.items()}


def hugging_face_clip(state: State) -> State:
    """Return a timm transformer with a norm before its blocks as Hugging Face's CLIP names it."""
    state = split_qkv(state, lambda letter: f"self_attn.{letter}_proj")
    state = renamed(
        state,
        [
            (r"^cls_token$", "embeddings.class_embedding"),
            (r"^pos_embed$", "embeddings.position_embedding.weight"),
            (r"^patch_embed\.proj", "embeddings.patch_embedding"),
            (r"^norm_pre\.", "pre_layrnorm."),
            (r"^norm\.", "post_layernorm."),
            (r"\.norm([12])\.", r".layer_norm\1."),
            (r"attn\.proj", "self_attn.out_proj"),
            (r"^blocks\.", "encoder.layers."),
        ],
    )
    state["embeddings.class_embedding"] = state["embeddings.class_embedding"].reshape(-1)
    at = "embeddings.position_embedding.weight"
    state[at] = state[at][0]
    return {f"vision_model.{key}": value for key, value in state.items()}


def meta_dinov3(model: Any) -> State:
    """Return timm's DINOv3 as Meta's own class names it."""
    state = renamed(
        dict(model.state_dict()),
        [
            (r"^reg_token$", "storage_tokens"),
            (r"\.gamma_([12])$", r".ls\1.gamma"),
        ],
    )
    return {**state, "rope_embed.periods": model.rope.periods.clone()}


def hugging_face_dinov3(model: Any) -> State:
    """Return timm's DINOv3 as Hugging Face's DINOv3ViTModel names it, without the periods."""
    state = split_qkv(dict(model.state_dict()), lambda letter: f"attention.{letter}_proj")
    return renamed(
        state,
        [
            (r"^cls_token$", "embeddings.cls_token"),
            (r"^reg_token$", "embeddings.register_tokens"),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
            (r"attn\.proj", "attention.o_proj"),
            (r"mlp\.fc1", "mlp.up_proj"),
            (r"mlp\.fc2", "mlp.down_proj"),
            (r"\.gamma_([12])$", r".layer_scale\1.lambda1"),
            (r"^blocks\.", "layer."),
        ],
    )
