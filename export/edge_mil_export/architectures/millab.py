"""ABMIL as MIL-Lab writes it."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, Options, gated
from edge_mil_export.architectures.nystrom import fresh_parts
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FRESH_WIDTH, FRESH_HIDDEN = 64, 48
"""The official 512 and 384, scaled."""


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
        mahmoodlab/MIL-Lab, src/models/abmil.py (layout only); `aggregators.md`, 4.1.
    """

    def __init__(self, layout: StateDictReader, options: Options) -> None:
        super().__init__(layout, options)
        width = feature_dim = layout.tensor("patch_embed.0.weight", None, None).shape[1]
        layers: list[nn.Module] = []
        for index in layout.indices("patch_embed."):
            layer = layout.linear(f"patch_embed.{index}", width)
            width = layer.out_features
            layers += [layer, nn.ReLU()]
        at = "global_attn"
        if f"{at}.attention_c.weight" in layout:
            names = (f"{at}.attention_a.0", f"{at}.attention_b.0", f"{at}.attention_c")
        else:
            last = max(layout.indices(f"{at}.module."), default=0)
            names = (f"{at}.module.0", "", f"{at}.module.{last}")
        attention = gated(layout, *names, width)
        classifier = layout.linear("classifier", attention.channels * width)
        self.assemble(nn.Sequential(*layers), attention, classifier, feature_dim=feature_dim)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh gated head of width 64."""
        return fresh_parts(
            {
                "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "global_attn.attention_a.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "global_attn.attention_b.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "global_attn.attention_c": nn.Linear(FRESH_HIDDEN, 1),
                "classifier": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
