"""ABMIL as MIL-Lab writes it."""

from __future__ import annotations

from torch import nn

from edge_mil_export.architectures.head import AttentionHead, Options, gated
from edge_mil_export.architectures.layout import Layout
from edge_mil_export.architectures.registry import architecture


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

    def __init__(self, layout: Layout, options: Options) -> None:
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
