"""Swin transformers from their weights, with the convolutional stem of CTransPath or without."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.published.networks.resnet import batch_norm
from edge_mil_export.extractors.timm_import import import_timm

NORM_EPS = 1e-5
"""Of every Swin: microsoft/Swin-Transformer, models/swin_transformer.py, takes torch's default."""
STEM_PATCH = 4
"""Two convolutions of stride 2 come before the first block."""
STEM_IMAGE_PX = 224
"""The only size that CTransPath takes: Xiyue-Wang/TransPath, ctran.py, asserts it."""
BUFFERS = ("relative_position_index", "attn_mask")


@dataclass(frozen=True, slots=True)
class SwinShape:
    """What the keys and shapes tell.

    Attributes:
        width: Of the first stage.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of a window, in tokens.
        ratio: Width inside of the multilayer perceptrons, as a multiple of the stage's.
        patch: Side of a patch, px.
        stem: Whether convolutions make the patches.
        image_px: The size that the stored masks were made for; 0 where there are none.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    ratio: float
    patch: int
    stem: bool
    image_px: int

    def describe(self) -> str:
        """Return the shape in words."""
        blocks = "-".join(str(depth) for depth in self.depths)
        stem = ", convolutional stem" if self.stem else ""
        return f"Swin {self.width} wide, {blocks} blocks, windows of {self.window}{stem}"


def read_swin(state: dict[str, torch.Tensor]) -> SwinShape:
    """Read the shape of a Swin transformer.

    Raises:
        ExtractorError: A weight is missing.
    """
    try:
        depths: list[int] = []
        heads: list[int] = []
        while any(key.startswith(f"layers.{len(depths)}.blocks.") for key in state):
            stage = f"layers.{len(depths)}.blocks."
            depths.append(len({key.split(".")[3] for key in state if key.startswith(stage)}))
            heads.append(state[f"{stage}0.attn.relative_position_bias_table"].shape[1])
        first = "layers.0.blocks."
        biases = state[f"{first}0.attn.relative_position_bias_table"].shape[0]
        hidden, width = state[f"{first}0.mlp.fc1.weight"].shape
    except KeyError as error:
        raise ExtractorError(f"it lacks {error.args[0]}") from error
    # The table holds a bias for each offset from -(window - 1) to window - 1 along both sides.
    window = (math.isqrt(biases) + 1) // 2
    stem = "patch_embed.proj.0.weight" in state
    patch = STEM_PATCH if stem else int(state["patch_embed.proj.weight"].shape[-1])
    mask = state.get(f"{first}1.attn_mask")
    image = 0 if mask is None else math.isqrt(mask.shape[0]) * window * patch
    return SwinShape(width, tuple(depths), tuple(heads), window, hidden / width, patch, stem, image)


def build_swin(
    state: dict[str, torch.Tensor], shape: SwinShape, tile_px: tuple[int, int], name: str
) -> nn.Module:
    """Return the network: images (n, 3, h, w) to the mean (n, d) of all tokens after the last norm.

    Raises:
        ExtractorError: The tiles have another size than the model takes, or weights are missing.
    """
    image = shape.image_px or (STEM_IMAGE_PX if shape.stem else 0)
    if image and tile_px != (image, image):
        raise ExtractorError(
            f"{name} takes tiles of {image}x{image} px only; give --tile-px {image}."
        )
    import_timm()
    from timm.models.swin_transformer import SwinTransformer

    state = {key: value for key, value in state.items() if not key.endswith(BUFFERS)}
    if "layers.0.downsample.reduction.weight" in state:
        # The authors downsample at the end of a stage, timm at the start of the next.
        state = {
            re.sub(r"^layers\.(\d+)\.downsample", _next_stage, key): value
            for key, value in state.items()
        }
    options: dict[str, Any] = {"embed_layer": partial(ConvolutionalStem, state)}
    model = SwinTransformer(
        img_size=tile_px,
        patch_size=shape.patch,
        num_classes=0,
        embed_dim=shape.width,
        depths=shape.depths,
        num_heads=shape.heads,
        window_size=shape.window,
        mlp_ratio=shape.ratio,
        norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),  # type: ignore[arg-type]
        global_pool="avg",
        **(options if shape.stem else {}),
    )
    if shape.stem:
        state = {key: value for key, value in state.items() if not key.startswith("patch_embed.")}
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.startswith("patch_embed.")]
    unknown = [key for key in state if key not in own]
    if missing or unknown:
        what = f"it lacks {missing[0]}" if missing else f"it has {unknown[0]} beside it"
        raise ExtractorError(what)
    model.load_state_dict(state, strict=False)
    made: nn.Module = model
    return made


class ConvolutionalStem(nn.Module):
    """CTransPath's patches: 3x3 convolutions of stride 2 with batch norm and ReLU, then 1x1.

    Source:
        Xiyue-Wang/TransPath, ctran.py, ConvStem.
    """

    def __init__(self, state: dict[str, torch.Tensor], img_size: Any, **_: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        at = "patch_embed.proj."
        for conv, norm in ((0, 1), (3, 4)):
            weight = state[f"{at}{conv}.weight"]
            made = nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2, 1, bias=False)
            made.load_state_dict({"weight": weight})
            layers += [made, batch_norm(state, f"{at}{norm}"), nn.ReLU()]
        last = {part: state[f"{at}6.{part}"] for part in ("weight", "bias")}
        made = nn.Conv2d(last["weight"].shape[1], last["weight"].shape[0], 1)
        made.load_state_dict(last)
        self.proj = nn.Sequential(*layers, made)
        self.norm = nn.LayerNorm(last["bias"].shape[0], eps=NORM_EPS)
        self.norm.load_state_dict(
            {part: state[f"patch_embed.norm.{part}"] for part in ("weight", "bias")}
        )
        self.grid_size = tuple(side // STEM_PATCH for side in img_size)
        self.patch_size = (STEM_PATCH, STEM_PATCH)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, h / 4, w / 4, d)."""
        tokens: torch.Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return tokens


def _next_stage(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"
