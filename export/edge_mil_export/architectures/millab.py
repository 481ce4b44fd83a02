"""ABMIL as MIL-Lab writes it."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.clam import clam_attention
from edge_mil_export.architectures.head import AttentionHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

MILLAB_HIDDEN = 48
"""The official 384, scaled."""


@architecture(
    "abmil_millab",
    keys=(
        "patch_embed.0.weight",
        "global_attn.attention_c.weight|global_attn.module.*.weight",
    ),
    row=150,
)
class AbmilMillab(AttentionHead):
    """One or several embedding layers, each with a relu, then attention with or without a gate.

    Source:
        mahmoodlab/MIL-Lab, src/models/abmil.py (layout only).
    """

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        width = feature_dim = reader.tensor("patch_embed.0.weight", None, None).shape[1]
        layers: list[nn.Module] = []
        for index in reader.indices("patch_embed."):
            layer = reader.linear(f"patch_embed.{index}", width)
            width = layer.out_features
            layers += [layer, nn.ReLU()]
        attention = clam_attention(reader, "global_attn", width)
        classifier = reader.linear("classifier", attention.channels * width)
        self.assemble(nn.Sequential(*layers), attention, classifier, feature_dim=feature_dim)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "global_attn.attention_a.0": nn.Linear(FRESH_WIDTH, MILLAB_HIDDEN),
                "global_attn.attention_b.0": nn.Linear(FRESH_WIDTH, MILLAB_HIDDEN),
                "global_attn.attention_c": nn.Linear(MILLAB_HIDDEN, 1),
                "classifier": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
