"""A vision transformer that computes what DINO, DINOv2, DINOv3, timm, CLIP and others publish.

One small module covers their differences (registers, layer scale, SwiGLU, a norm before the
blocks, rotary positions), whose options no single class of timm has; the tests compare it with
timm's own models. Its weights have the names that `vit_layouts` gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

QUICK_GELU = 1.702
"""Source: openai/CLIP, clip/model.py, QuickGELU: x * sigmoid(1.702 x)."""


@dataclass(frozen=True, slots=True)
class VitShape:
    """What the keys and shapes of a transformer tell.

    Attributes:
        width: Of a token, d.
        depth: Number of blocks.
        patch: Height and width of a patch, px.
        hidden: Width inside of the blocks' multilayer perceptrons (of one half, where gated).
        gated: Whether they are SwiGLU: silu(first half) * second half.
        layer_scale: Whether a learned factor scales each branch.
        qkv_bias: Whether the attention's first layer has a bias.
        patch_bias: Whether the patch embedding has one.
        pre_norm: Whether a norm precedes the blocks (CLIP).
        registers: Number of register tokens.
        class_token: Whether there is a class token.
        projection: Width of the projection, 0 without.
        rotary: Whether positions are rotations of queries and keys (DINOv3).
    """

    width: int
    depth: int
    patch: tuple[int, int]
    hidden: int
    gated: bool
    layer_scale: bool
    qkv_bias: bool
    patch_bias: bool
    pre_norm: bool
    registers: int
    class_token: bool
    projection: int = 0
    rotary: bool = False

    def describe(self) -> str:
        """Return the shape in words."""
        parts = [
            f"ViT {self.width} wide",
            f"{self.depth} blocks",
            f"patches of {self.patch[1]}x{self.patch[0]} px",
            *([f"{self.registers} registers"] if self.registers else []),
            *(["SwiGLU"] if self.gated else []),
            *(["layer scale"] if self.layer_scale else []),
            *(["rotary positions"] if self.rotary else []),
        ]
        return ", ".join(parts)


class Block(nn.Module):
    """Attention and a multilayer perceptron, each added to its input after a norm."""

    def __init__(self, shape: VitShape, heads: int, eps: float, activation: str) -> None:
        super().__init__()
        self.heads, self.gated, self.activation = heads, shape.gated, activation
        self.norm1 = nn.LayerNorm(shape.width, eps=eps)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=shape.qkv_bias)
        self.proj = nn.Linear(shape.width, shape.width)
        self.norm2 = nn.LayerNorm(shape.width, eps=eps)
        self.fc1 = nn.Linear(shape.width, shape.hidden * (2 if shape.gated else 1))
        self.fc2 = nn.Linear(shape.hidden, shape.width)
        self.ls1 = nn.Parameter(torch.empty(shape.width)) if shape.layer_scale else None
        self.ls2 = nn.Parameter(torch.empty(shape.width)) if shape.layer_scale else None

    def forward(self, x: torch.Tensor, turns: torch.Tensor | None) -> torch.Tensor:
        """Return the tokens (n, t, d) after the block; `turns` is (2, patches, head width)."""
        found = self._attend(self.norm1(x), turns)
        x = x + (found if self.ls1 is None else self.ls1 * found)
        found = self._perceive(self.norm2(x))
        return x + (found if self.ls2 is None else self.ls2 * found)

    def _attend(self, x: torch.Tensor, turns: torch.Tensor | None) -> torch.Tensor:
        count, length, width = x.shape
        split = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        if turns is not None:
            query, key = _turned(query, turns), _turned(key, turns)
        found = functional.scaled_dot_product_attention(query, key, value)
        joined: torch.Tensor = self.proj(found.transpose(1, 2).reshape(count, length, width))
        return joined

    def _perceive(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.fc1(x)
        if self.gated:
            gate, given = inside.chunk(2, dim=-1)
            inside = functional.silu(gate) * given
        elif self.activation == "quick_gelu":
            inside = inside * torch.sigmoid(QUICK_GELU * inside)
        else:
            inside = functional.gelu(inside)
        out: torch.Tensor = self.fc2(inside)
        return out


class VisionTransformer(nn.Module):
    """Images (n, 3, h, w) of one size to features (n, e).

    `prefix` holds class and register tokens with their positions added, `positions` those of the
    patches on the grid of this tile size.
    """

    def __init__(
        self, shape: VitShape, *, heads: int, eps: float, activation: str, pooling: str
    ) -> None:
        super().__init__()
        self.shape, self.pooling = shape, pooling
        self.prefix_count = shape.registers + (1 if shape.class_token else 0)
        self.patch = nn.Conv2d(3, shape.width, shape.patch, shape.patch, bias=shape.patch_bias)
        self.norm_pre = nn.LayerNorm(shape.width, eps=eps) if shape.pre_norm else None
        self.blocks = nn.ModuleList(
            Block(shape, heads, eps, activation) for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width, eps=eps)
        self.projection = (
            nn.Parameter(torch.empty(shape.width, shape.projection)) if shape.projection else None
        )
        self.pool: nn.Module | None = None
        self.prefix: torch.Tensor | None = None
        self.positions: torch.Tensor | None = None
        self.turns: torch.Tensor | None = None
        for name in ("prefix", "positions", "turns"):
            delattr(self, name)
            self.register_buffer(name, None, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled features."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        if self.positions is not None:
            x = x + self.positions
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], dim=1)
        if self.norm_pre is not None:
            x = self.norm_pre(x)
        for block in self.blocks:
            x = block(x, self.turns)
        return self._pooled(self.norm(x))

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            pooled: torch.Tensor = self.pool(x)
            return pooled
        if self.pooling == "token_mean":
            return x.mean(dim=1)
        if self.pooling == "patch_mean":
            return x[:, self.prefix_count :].mean(dim=1)
        if self.pooling == "cls_patch_mean":
            return torch.cat([x[:, 0], x[:, self.prefix_count :].mean(dim=1)], dim=1)
        if self.pooling == "projected":
            assert self.projection is not None
            return x[:, 0] @ self.projection
        return x[:, 0]


def rotary_turns(periods: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return sine and cosine of each patch's rotations, (2, h * w, head width).

    Args:
        periods: A quarter of a head's width of them, as DINOv3 stores them.
        grid: h and w, in patches.

    Source:
        facebookresearch/dinov3, dinov3/layers/rope_position_encoding.py: the centres of the patches
        run from -1 to 1 along each side.
    """
    sides = [2 * torch.arange(0.5, side) / side - 1 for side in grid]
    centres = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
    angles = 2 * math.pi * centres[:, :, None] / periods[None, None, :]
    angles = angles.flatten(1, 2).tile(2)
    return torch.stack([angles.sin(), angles.cos()])


def _turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotate the patches of queries or keys (n, heads, t, head width); prefix tokens stay."""
    sine, cosine = turns[0], turns[1]
    prefix = x.shape[2] - sine.shape[0]
    patches = x[:, :, prefix:]
    first, second = patches.chunk(2, dim=-1)
    rotated = patches * cosine + torch.cat([-second, first], dim=-1) * sine
    return torch.cat([x[:, :, :prefix], rotated], dim=2)
