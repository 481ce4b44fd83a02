"""MIL-Lab's transformer: attention between all instances, with a class token."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.millab.attention import embedding_layers
from edge_mil_export.architectures.nystrom import read_mlp
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.transformer import (
    HEADS,
    AttentionLayer,
    TokenTransformer,
    fresh_attention,
)

MLP = ("mlp.fc1", "mlp.fc2")


@architecture(
    "transformer_millab",
    keys=("patch_embed.0.weight", "blocks.0.attention.in_proj_weight"),
    row=142,
)
class TransformerMillab(TokenTransformer):
    """h + MHA(LN h) in each block; a network after it only where the file has one.

    Asked for its attention maps, the official first block adds another row to all tokens and gives
    another score; this is the plain forward.

    Source:
        mahmoodlab/MIL-Lab, src/models/transformer.py (layout only).
    """

    options = (HEADS,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        embed, feature_dim, width = embedding_layers(reader)
        layers = []
        for k in reader.indices("blocks."):
            at = f"blocks.{k}"
            norm = reader.layer_norm(f"{at}.norm", width)
            parts = reader.multihead(f"{at}.attention", width)
            mlp = read_mlp(reader, at, "norm2", MLP, width)
            layers.append(AttentionLayer(norm, *parts, mlp, int(options["heads"])))
        self.assemble(
            embed,
            reader.tensor("cls_token", 1, 1, width),
            layers,
            reader.layer_norm("norm", width),
            reader.linear("classifier", width),
            feature_dim=feature_dim,
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "norm": nn.LayerNorm(FRESH_WIDTH),
            "classifier": nn.Linear(FRESH_WIDTH, outputs),
        }
        state = {"cls_token": torch.randn(1, 1, FRESH_WIDTH)}
        for k in range(2):
            parts[f"blocks.{k}.norm"] = nn.LayerNorm(FRESH_WIDTH)
            state |= fresh_attention(f"blocks.{k}.attention")
        return state | fresh_parts(parts)
