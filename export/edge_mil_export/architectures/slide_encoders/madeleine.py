"""MADELEINE: attention in several heads over one embedding, then a projection."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import leaky_relu

from edge_mil_export.architectures.clam import clam_attention
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FRESH_HEADS = 2


class HeadSlices(nn.Module):
    """Rows (n, l * heads) as (n, heads, l), where feature e of head c is column e * heads + c."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(rows.shape[0], -1, self.heads).permute(0, 2, 1)


@architecture(
    "madeleine",
    keys=("wsi_embedders.pre_attn.0.weight", "wsi_embedders.attn.0.attention_c.weight"),
    row=145,
)
class Madeleine(Head):
    """The projected vectors of all heads, each pooled by its own gated attention.

    With another weighting than softmax the weights are not normalised: the vector is a sum, which
    grows with the bag. `token_projector` is for training only.

    Source:
        Jaume et al. 2024, arXiv:2408.02859; mahmoodlab/MADELEINE, madeleine/models/Model.py and
        madeleine/models/abmil.py (layout only).
    """

    options = (
        Option(
            "weighting",
            ("softmax", "leaky_relu", "relu", "sigmoid"),
            "how attention logits become weights",
            "softmax",
        ),
    )
    kind = "pooling"
    training_only = ("token_projector.", "logit_scale")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        at = "wsi_embedders.pre_attn"
        width = self.feature_dim = reader.tensor(f"{at}.0.weight", None, None).shape[1]
        layers: list[nn.Module] = []
        for index in reader.indices(f"{at}.")[::2]:
            layer = reader.linear(f"{at}.{index}", width)
            width = layer.out_features
            layers += [layer, reader.layer_norm(f"{at}.{index + 1}", width), nn.GELU()]
        numbers = reader.indices("wsi_embedders.attn.")
        self.embed, self.slices = nn.Sequential(*layers), HeadSlices(len(numbers))
        self.heads, self.each = len(numbers), width // len(numbers)
        self.attentions = nn.ModuleList(
            clam_attention(reader, f"wsi_embedders.attn.{c}", self.each) for c in numbers
        )
        self.projector = reader.linear("projector", width)
        self.weighting = options["weighting"]
        self.value_dim, self.outputs = width, self.projector.out_features
        is_mean = self.weighting == "softmax"
        self.pooling, self.channels = ("multihead", self.heads) if is_mean else ("sum", 0)

    @property
    def pooled_rows(self) -> int:
        return 1

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the heads' embeddings side by side, (n, heads * l), and their logits."""
        each = self.slices(self.embed(features))
        logits = torch.cat([a(each[:, c]) for c, a in enumerate(self.attentions)], dim=1)
        if self.channels:
            return each.flatten(1), logits
        weights = {"leaky_relu": leaky_relu, "relu": torch.relu, "sigmoid": torch.sigmoid}
        rows = (each * weights[self.weighting](logits)[:, :, None]).flatten(1)
        return rows, rows

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the projection of the heads' pooled vectors, the head as the fastest index."""
        each = pooled.reshape(pooled.shape[0], self.heads, self.each)
        projected: torch.Tensor = self.projector(each.permute(0, 2, 1).flatten(1))
        return projected

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows, logits = self.attend(features)
        if not self.channels:
            return self.classify(rows.sum(dim=0)[None, None])[0]
        weights = torch.softmax(logits, dim=0)[:, :, None]
        each = rows.reshape(-1, self.heads, self.each)
        return self.classify((weights * each).sum(dim=0).reshape(1, 1, -1))[0]

    def describe(self) -> str:
        return f"{self.heads} heads"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        at, width, last = "wsi_embedders", FRESH_WIDTH, FRESH_WIDTH * FRESH_HEADS
        parts: dict[str, nn.Module] = {
            f"{at}.pre_attn.0": nn.Linear(feature_dim, width),
            f"{at}.pre_attn.1": nn.LayerNorm(width),
            f"{at}.pre_attn.4": nn.Linear(width, width),
            f"{at}.pre_attn.5": nn.LayerNorm(width),
            f"{at}.pre_attn.8": nn.Linear(width, last),
            f"{at}.pre_attn.9": nn.LayerNorm(last),
            "projector": nn.Linear(last, outputs),
        }
        for c in range(FRESH_HEADS):
            parts[f"{at}.attn.{c}.attention_a.0"] = nn.Linear(width, FRESH_HIDDEN)
            parts[f"{at}.attn.{c}.attention_b.0"] = nn.Linear(width, FRESH_HIDDEN)
            parts[f"{at}.attn.{c}.attention_c"] = nn.Linear(FRESH_HIDDEN, 1)
        return fresh_parts(parts)
