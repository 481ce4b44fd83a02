"""Prov-GigaPath's slide encoder: dilated attention over tiles with coordinates."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from edge_mil.aggregators.whole_bag.longnet import MISSING, WAVELENGTH
from edge_mil.errors import UsageError
from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.nystrom import checked_heads
from edge_mil_export.architectures.options import BOOLEAN, INTEGER, INTEGERS, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.transformer import joined

FRESH_LAYERS, FRESH_MLP = 1, 48


class LongNetLayer(nn.Module):
    """x + out(LN(dilated attention(LN x))), then x + fc2(LN(gelu(fc1(LN x))))."""

    def __init__(self, reader: StateDictReader, at: str, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = reader.layer_norm(f"{at}.self_attn_layer_norm", width)
        parts = [reader.linear(f"{at}.self_attn.{n}_proj", width, width) for n in ("q", "k", "v")]
        self.qkv, self.heads = joined(parts), heads
        self.inner_norm = reader.layer_norm(f"{at}.self_attn.inner_attn_ln", width)
        self.out = reader.linear(f"{at}.self_attn.out_proj", width, width)
        self.norm2 = reader.layer_norm(f"{at}.final_layer_norm", width)
        self.fc1 = reader.linear(f"{at}.ffn.fc1", width)
        self.mlp_norm = reader.layer_norm(f"{at}.ffn.ffn_layernorm", self.fc1.out_features)
        self.fc2 = reader.linear(f"{at}.ffn.fc2", self.fc1.out_features, width)

    def forward(self, x: torch.Tensor, branches: list[tuple[int, int]]) -> torch.Tensor:
        split = self.qkv(self.norm1(x)).reshape(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
        found = [_dilated(split, min(segment, len(x)), ratio) for segment, ratio in branches]
        shares = torch.softmax(torch.stack([logs for _, logs in found]), dim=0)
        mixed = (shares[..., None] * torch.stack([rows for rows, _ in found])).sum(dim=0)
        x = x + self.out(self.inner_norm(mixed.permute(1, 0, 2).flatten(1)))
        hidden = functional.gelu(self.fc1(self.norm2(x)))
        out: torch.Tensor = x + self.fc2(self.mlp_norm(hidden))
        return out


def _dilated(split: torch.Tensor, segment: int, ratio: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one branch's rows (heads, n, each) and their log-sum-exp (heads, n)."""
    query, key, value = split
    heads, count, each = query.shape
    group, length = math.ceil(heads / ratio), math.ceil(segment / ratio)
    outs, sums = [], []
    for head in range(heads):
        rows, logs = query.new_zeros(count, each), query.new_full((count,), MISSING)
        for start in range(0, count, segment):
            stop = min(start + segment, count)
            seen = torch.arange(min(start + head // group, stop), stop, ratio)
            if len(seen) == 0:
                continue
            logits = query[head, seen] @ key[head, seen].T * each**-0.5
            logits = functional.pad(logits, (0, length - len(seen)))  # keys of zeros take part
            weights = torch.softmax(logits, dim=1)[:, : len(seen)]
            rows = rows.index_copy(0, seen, weights @ value[head, seen])
            logs = logs.index_copy(0, seen, torch.logsumexp(logits, dim=1))
        outs.append(rows)
        sums.append(logs)
    return torch.stack(outs), torch.stack(sums)


@architecture(
    "gigapath",
    keys=("patch_embed.proj.weight", "encoder.layers.0.self_attn.inner_attn_ln.weight"),
    row=147,
)
class GigaPath(WholeBagHead):
    """The class token after layers of dilated attention, or the mean of the tiles.

    The order of the tiles counts, and so do their coordinates: a tile's position is that of
    its cell of `tile_size`. No official output of the mean was at hand.

    Source:
        Xu et al. 2024, doi:10.1038/s41586-024-07441-w; prov-gigapath/prov-gigapath,
        gigapath/slide_encoder.py and gigapath/torchscale.
    """

    options = (
        Option("heads", INTEGER, "every attention"),
        Option("grid", INTEGER, "the code of each tile's position"),
        Option("tile_size", INTEGER, "the code of each tile's position"),
        Option("global_pool", BOOLEAN, "whether the tiles' mean or the class token is the answer"),
        Option("segment_length", INTEGERS, "which tiles attend each other"),
        Option("dilated_ratio", INTEGERS, "which tiles attend each other"),
    )
    kind = "pooling"
    order = "grid"
    needs_positions = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "longnet"
        segments, ratios = (
            [int(number) for number in options[name].split(",")]
            for name in ("segment_length", "dilated_ratio")
        )
        if len(segments) != len(ratios):
            raise UsageError(
                f"segment_length has {len(segments)} numbers and dilated_ratio {len(ratios)}; name "
                "one of each for every branch."
            )
        self.branches = list(zip(segments, ratios, strict=True))
        self.embed = reader.linear("patch_embed.proj")
        width = self.embed.out_features
        heads = checked_heads(int(options["heads"]), width)
        if width % 4:
            raise UsageError(f"The width {width} has no code of positions: it is no multiple of 4.")
        self.grid, self.tile_size = int(options["grid"]), int(options["tile_size"])
        self.mean = options["global_pool"] == "true"
        self.token = nn.Parameter(reader.tensor("cls_token", 1, 1, width).flatten().clone())
        self.layers = nn.ModuleList(
            LongNetLayer(reader, f"encoder.layers.{k}", width, heads)
            for k in reader.indices("encoder.layers.")
        )
        self.encoder_norm = reader.layer_norm("encoder.layer_norm", width)
        self.norm = reader.layer_norm("norm", width)
        self.feature_dim, self.value_dim = self.embed.in_features, width
        self.channels, self.outputs = 0, width

    def forward(
        self, features: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the vector (l,) of a bag (n, d) at coordinates (n, 2); a square without them."""
        count = len(features)
        cells = torch.arange(count)
        side = math.isqrt(count - 1) + 1
        columns, rows = cells % side, cells // side
        if positions is not None:
            columns, rows = (positions / self.tile_size).floor().long().unbind(dim=1)
        x = torch.cat([self.token[None], self.embed(features) + self._codes(columns, rows)])
        for layer in self.layers:
            x = layer(x, self.branches)
        x = self.encoder_norm(x)
        found: torch.Tensor = self.norm(x[1:].mean(dim=0) if self.mean else x[0])
        return found

    def _codes(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        quarter = self.value_dim // 4
        rates = 1.0 / WAVELENGTH ** (torch.arange(quarter, dtype=torch.float64) / quarter)
        parts = []
        for index in (second, first):
            angles = index[:, None] * rates
            parts += [torch.sin(angles), torch.cos(angles)]
        return torch.cat(parts, dim=1).to(self.token.dtype)

    def arrays(self) -> Arrays:
        found = arrays_of({"cls_token": self.token})
        found |= arrays_of({"encoder_norm": self.encoder_norm, "norm": self.norm})
        for number, layer in enumerate(self.layers):
            at = f"layers.{number}"
            found |= arrays_of({f"{at}.{name}": part for name, part in layer.named_children()})
        return found

    def describe(self) -> str:
        return f"{len(self.layers)} layers"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width = FRESH_WIDTH
        parts: dict[str, nn.Module] = {
            "patch_embed.proj": nn.Linear(feature_dim, width),
            "encoder.layer_norm": nn.LayerNorm(width),
            "norm": nn.LayerNorm(width),
        }
        for k in range(FRESH_LAYERS):
            at = f"encoder.layers.{k}"
            for name in ("q", "k", "v", "out"):
                parts[f"{at}.self_attn.{name}_proj"] = nn.Linear(width, width)
            parts[f"{at}.self_attn.inner_attn_ln"] = nn.LayerNorm(width)
            parts[f"{at}.self_attn_layer_norm"] = nn.LayerNorm(width)
            parts[f"{at}.final_layer_norm"] = nn.LayerNorm(width)
            parts[f"{at}.ffn.fc1"] = nn.Linear(width, FRESH_MLP)
            parts[f"{at}.ffn.ffn_layernorm"] = nn.LayerNorm(FRESH_MLP)
            parts[f"{at}.ffn.fc2"] = nn.Linear(FRESH_MLP, width)
        return fresh_parts(parts) | {"cls_token": torch.randn(1, 1, width)}
