"""STAMP's transformer, with and without a bias by the distance between tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.nystrom import read_mlp
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.transformer import (
    HEADS,
    AttentionLayer,
    TokenTransformer,
    fresh_attention,
    joined,
)

Attention = Callable[[str], dict[str, torch.Tensor]]
MLP = ("1.1", "1.4")
FRESH_ALIBI_HEADS = 4


class _StampVit(TokenTransformer):
    """`gelu(project_features x)` after a class token, layers with an MLP each, `mlp_head`.

    Prediction passes no mask, so that all tokens see the class token.
    """

    def build(self, reader: StateDictReader, heads: int | None) -> None:
        """Build the head; without `heads` each head has its own keys, and a slope."""
        first = reader.linear("project_features.0")
        width = first.out_features
        layers = []
        for k in reader.indices("transformer.layers."):
            at = f"transformer.layers.{k}"
            norm = reader.layer_norm(f"{at}.0.norm", width)
            mlp = read_mlp(reader, at, "1.0", MLP, width)
            if heads is None:
                layers.append(_alibi_layer(reader, f"{at}.0.mhsa", norm, mlp))
            else:
                parts = reader.multihead(f"{at}.0.mhsa", width)
                layers.append(AttentionLayer(norm, *parts, mlp, heads))
        self.assemble(
            nn.Sequential(first, nn.GELU()),
            reader.tensor("class_token", width),
            layers,
            reader.layer_norm("transformer.norm", width),
            reader.linear("mlp_head.0", width),
            feature_dim=first.in_features,
        )


@architecture(
    "stamp_vit",
    keys=("class_token", "transformer.layers.0.0.mhsa.in_proj_weight"),
    row=262,
)
class StampVit(_StampVit):
    """STAMP's `vit`.

    Source:
        El Nahhas et al. 2024, arXiv:2312.10944; KatherLab/STAMP,
        src/stamp/modeling/models/vision_tranformer.py.
    """

    options = (HEADS,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.build(reader, int(options["heads"]))

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return _fresh(feature_dim, outputs, fresh_attention)


@architecture(
    "stamp_vit_alibi",
    keys=("class_token", "transformer.layers.0.0.mhsa.attentions.0.bias_scale"),
    row=263,
)
class StampVitAlibi(_StampVit):
    """STAMP's `vit` with ALiBi: weights lose by the distance between two tiles.

    The class token lies at (0, 0) and has distances too, so that the answer depends on the origin
    and the unit of the coordinates: those of the features file must be as in training.

    Source:
        KatherLab/STAMP, src/stamp/modeling/models/vision_tranformer.py (use_alibi).
    """

    needs_positions = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.build(reader, None)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return _fresh(feature_dim, outputs, _fresh_alibi)


def _alibi_layer(
    reader: StateDictReader, at: str, norm: nn.LayerNorm, mlp: nn.Sequential | None
) -> AttentionLayer:
    """Build an attention of which each head has its own encoders and its own slope."""
    heads = reader.indices(f"{at}.attentions.")
    width = norm.normalized_shape[0]
    encoders = [
        reader.linear(f"{at}.{part}_encoders.{head}", width)
        for part in ("query", "key", "value")
        for head in heads
    ]
    slopes = []
    for head in heads:
        prefix = f"{at}.attentions.{head}"
        reader.ignore([f"{prefix}.scale_distance.items_so_far"])
        mean = reader.tensor(f"{prefix}.scale_distance.running_mean", 1)
        slopes.append(reader.tensor(f"{prefix}.bias_scale", 1) / mean)
    out = reader.linear(f"{at}.fc", width, width)
    return AttentionLayer(norm, joined(encoders), out, mlp, len(heads), torch.cat(slopes))


def _fresh(feature_dim: int, outputs: int, attention: Attention) -> dict[str, torch.Tensor]:
    parts: dict[str, nn.Module] = {
        "project_features.0": nn.Linear(feature_dim, FRESH_WIDTH),
        "transformer.norm": nn.LayerNorm(FRESH_WIDTH),
        "mlp_head.0": nn.Linear(FRESH_WIDTH, outputs),
    }
    state = {"class_token": torch.randn(FRESH_WIDTH)}
    for k in range(2):
        at = f"transformer.layers.{k}"
        parts[f"{at}.0.norm"] = nn.LayerNorm(FRESH_WIDTH)
        parts[f"{at}.1.0"] = nn.LayerNorm(FRESH_WIDTH)
        parts[f"{at}.1.1"] = nn.Linear(FRESH_WIDTH, FRESH_WIDTH)
        parts[f"{at}.1.4"] = nn.Linear(FRESH_WIDTH, FRESH_WIDTH)
        state |= attention(f"{at}.0.mhsa")
    return state | fresh_parts(parts)


def _fresh_alibi(at: str) -> dict[str, torch.Tensor]:
    each = FRESH_WIDTH // FRESH_ALIBI_HEADS
    parts: dict[str, nn.Module] = {f"{at}.fc": nn.Linear(FRESH_WIDTH, FRESH_WIDTH)}
    state: dict[str, torch.Tensor] = {}
    for head in range(FRESH_ALIBI_HEADS):
        for part in ("query", "key", "value"):
            parts[f"{at}.{part}_encoders.{head}"] = nn.Linear(FRESH_WIDTH, each)
        state[f"{at}.attentions.{head}.bias_scale"] = torch.zeros(1)
        state[f"{at}.attentions.{head}.scale_distance.running_mean"] = torch.ones(1)
    return state | fresh_parts(parts)
