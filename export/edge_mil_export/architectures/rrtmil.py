"""RRT-MIL: attention within regions of a grid and across them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from edge_mil_export.architectures.head import WholeBagHead, activation, mhim_attention
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import ACTIVATION, BOOLEAN, INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

CROSS_REGIONS = 8
"""Regions per side of the second stage, whatever region_num is."""
FRESH_HEADS, FRESH_TAPS, FRESH_LANDMARKS, HIDDEN = 8, 15, 3, 128
"""Of a fresh head, as published."""


class RegionAttention(nn.Module):
    """Multi-head attention among rows, with EPEG where it has `pe`."""

    def __init__(self, reader: StateDictReader, at: str, width: int, heads: int | None) -> None:
        super().__init__()
        self.qkv = reader.linear(f"{at}.qkv", width, bias=None)
        inner = self.qkv.out_features // 3
        self.proj = reader.linear(f"{at}.proj", inner, width, bias=None)
        self.pe: nn.Conv2d | None = None
        if heads is None:
            kernel = reader.tensor(f"{at}.pe.weight", None, 1, None, 1)
            heads, taps = kernel.shape[0], kernel.shape[2]
            has_bias = f"{at}.pe.bias" in reader
            size, pad = (taps, 1), (taps // 2, 0)
            self.pe = nn.Conv2d(heads, heads, size, padding=pad, groups=heads, bias=has_bias)
            with torch.no_grad():
                self.pe.weight.copy_(kernel)
                if self.pe.bias is not None:
                    self.pe.bias.copy_(reader.tensor(f"{at}.pe.bias", heads))
        if inner % heads:
            raise ArchitectureError(f"{at} is {inner} wide, which {heads} heads do not divide")
        self.heads, self.each = heads, inner // heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows (b, p, l) of rows (b, p, l), which attend within their group."""
        groups, count, _ = x.shape
        split = self.qkv(x).reshape(groups, count, 3, self.heads, self.each)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        logits = (query * self.each**-0.5) @ key.transpose(2, 3)
        if self.pe is not None:
            logits = logits + self.pe(logits)
        mixed = (torch.softmax(logits, dim=-1) @ value).transpose(1, 2)
        out: torch.Tensor = self.proj(mixed.flatten(2))
        return out

    def arrays(self, at: str) -> Arrays:
        """Return the weights as the device's part names them; EPEG's bias moves no softmax."""
        taps = None if self.pe is None else self.pe.weight[:, 0, :, 0]
        return arrays_of({f"{at}.qkv": self.qkv, f"{at}.proj": self.proj, f"{at}.pe": taps})


@architecture(
    "rrtmil",
    keys=("cr_msa.attn.phi|*cr_msa.attn.phi*", "patch_to_emb.0.weight"),
    row=90,
)
class RrtMil(WholeBagHead):
    """RRT-MIL: attention within regions of a grid and across them, then attention pooling.

    Source:
        Tang et al. 2024, arXiv:2402.17228; DearCaat/RRT-MIL, modules/rrt.py and modules/rmsa.py. No
        official output of the variant with a network as phi, or with another number of layers, was
        at hand.
    """

    options = (
        ACTIVATION,
        Option("attention_activation", ("relu", "gelu", "tanh"), "the attention of each instance"),
        Option("region_num", INTEGER, "which instances attend to each other"),
        Option("all_shortcut", BOOLEAN, "what is pooled"),
        Option("crmsa_heads", INTEGER, "the attention across regions", "8"),
    )
    order = "grid"

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "rrtmil"
        self.regions = int(options["region_num"])
        self.all_shortcut = options["all_shortcut"] == "true"
        first = reader.linear("patch_to_emb.0", bias=None)
        width, at = first.out_features, "online_encoder"
        self.embed = nn.Sequential(first, activation(options["activation"]))
        numbers = reader.indices(f"{at}.layers.")
        prefixes = [f"{at}.layers.{number}" for number in numbers]
        self.norms = nn.ModuleList(reader.layer_norm(f"{p}.norm", width) for p in prefixes)
        self.layers = nn.ModuleList(
            RegionAttention(reader, f"{p}.attn.attn", width, None) for p in prefixes
        )
        self.cross_norm = reader.layer_norm(f"{at}.cr_msa.norm", width)
        cross_heads = int(options["crmsa_heads"])
        self.cross = RegionAttention(reader, f"{at}.cr_msa.attn.attn", width, cross_heads)
        phi = f"{at}.cr_msa.attn.phi"
        self.landmarks: nn.Module
        if phi in reader:
            matrix = reader.tensor(phi, width, None)
            self.landmarks = nn.Linear(width, matrix.shape[1], bias=False)
            with torch.no_grad():
                self.landmarks.weight.copy_(matrix.T)
        else:
            inside = reader.linear(f"{phi}.0", width, bias=None)
            outside = reader.linear(f"{phi}.2", inside.out_features, bias=None)
            self.landmarks = nn.Sequential(inside, nn.Tanh(), outside)
        self.norm = reader.layer_norm(f"{at}.norm", width)
        branch_activation = options["attention_activation"]
        self.attention = mhim_attention(reader, "pool_fn.attention", width, branch_activation)
        self.predictor = reader.linear("predictor", width)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = self.attention.channels, self.predictor.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        start = h = self.embed(features)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            regions, back = _partition(norm(h), self.regions)
            h = h + layer(regions).flatten(0, 1)[back]
        regions, back = _partition(self.cross_norm(h), CROSS_REGIONS)
        h = h + self._across(regions).flatten(0, 1)[back]
        if self.all_shortcut:
            h = h + start
        h = self.norm(h)
        pooled = torch.softmax(self.attention(h), dim=0).T @ h
        logits: torch.Tensor = self.predictor(pooled)[0]
        return logits

    def _across(self, regions: torch.Tensor) -> torch.Tensor:
        """Return CR-MSA of regions, (r, p, l)."""
        logits = self.landmarks(regions)  # (r, p, k)
        tokens = torch.softmax(logits, dim=1).transpose(1, 2) @ regions
        tokens = self.cross(tokens.transpose(0, 1)).transpose(0, 1)
        low, high = logits.amin(dim=1, keepdim=True), logits.amax(dim=1, keepdim=True)
        spread = (logits - low) / (high - low + 1e-8)
        out: torch.Tensor = (spread * torch.softmax(logits, dim=2)) @ tokens
        return out

    def arrays(self) -> Arrays:
        found: Arrays = {}
        for number, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            assert isinstance(layer, RegionAttention)
            at = f"layers.{number}"
            found |= arrays_of({f"{at}.norm": norm}) | layer.arrays(at)
        found |= arrays_of({"cross.norm": self.cross_norm}) | self.cross.arrays("cross")
        return found | arrays_of(
            {
                "cross.phi": self.landmarks,
                "norm": self.norm,
                "predictor": self.predictor,
                "pool.branch": self.attention.branch,
                "pool.gate": self.attention.gate,
                "pool.last": self.attention.last,
            }
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width, at = FRESH_WIDTH, "online_encoder"
        inner, cross = f"{at}.layers.0.attn.attn", f"{at}.cr_msa.attn.attn"
        taps = nn.Conv2d(FRESH_HEADS, FRESH_HEADS, (FRESH_TAPS, 1), groups=FRESH_HEADS)
        parts: dict[str, nn.Module] = {
            "patch_to_emb.0": nn.Linear(feature_dim, width),
            f"{at}.norm": nn.LayerNorm(width),
            f"{at}.layers.0.norm": nn.LayerNorm(width),
            f"{inner}.qkv": nn.Linear(width, 3 * width),
            f"{inner}.proj": nn.Linear(width, width),
            f"{inner}.pe": taps,
            f"{at}.cr_msa.norm": nn.LayerNorm(width),
            f"{cross}.qkv": nn.Linear(width, 3 * width),
            f"{cross}.proj": nn.Linear(width, width),
            "pool_fn.attention.attention.0": nn.Linear(width, HIDDEN, bias=False),
            "pool_fn.attention.attention.2": nn.Linear(HIDDEN, 1, bias=False),
            "predictor": nn.Linear(width, outputs),
        }
        phi = torch.empty(width, FRESH_LANDMARKS)
        nn.init.kaiming_uniform_(phi, a=math.sqrt(5))
        return fresh_parts(parts) | {f"{at}.cr_msa.attn.phi": phi}


def _partition(x: torch.Tensor, per_side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows by region, (regions, positions, l), and where each row went, (n,)."""
    side = -(-(math.isqrt(len(x) - 1) + 1) // per_side) * per_side
    each = side // per_side
    rows = torch.arange(side * side).reshape(per_side, each, per_side, each)
    order = rows.transpose(1, 2).flatten()
    grid = functional.pad(x, (0, 0, 0, side * side - len(x)))[order]
    back = torch.argsort(order)[: len(x)]
    return grid.reshape(per_side * per_side, each * each, -1), back
