"""ABMIL, CLAM and FEATHER as MIL-Lab writes them."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.clam import clam_attention
from edge_mil_export.architectures.head import AttentionHead, Head
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

MILLAB_HIDDEN = 48
"""The official 384, scaled."""
ATTENTION = "global_attn.attention_c.weight|global_attn.module.*.weight"


def embedding_layers(
    reader: StateDictReader, *, before: str = "patch_embed"
) -> tuple[nn.Sequential, int, int]:
    """Return the embedding: linear layers with a relu after each.

    Args:
        reader: The state dict.
        before: Prefix of the layers, which are numbered.

    Returns:
        Features (n, d) to embeddings (n, l), d and l.
    """
    numbers = reader.indices(f"{before}.")
    width = feature_dim = reader.tensor(f"{before}.0.weight", None, None).shape[1]
    layers: list[nn.Module] = []
    for index in numbers:
        layer = reader.linear(f"{before}.{index}", width)
        width = layer.out_features
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers), feature_dim, width


@architecture(
    "abmil_millab",
    keys=("patch_embed.0.weight", ATTENTION, "classifier.weight"),
    row=150,
    aliases={"clam_millab": {}},
)
class AbmilMillab(AttentionHead):
    """One or several embedding layers, each with a relu, then attention with or without a gate.

    MIL-Lab's CLAM has the same score: one branch whatever the number of classes, and
    `instance_classifiers` that are for training only.

    Source:
        mahmoodlab/MIL-Lab, src/models/abmil.py and src/models/clam.py (layout only).
    """

    training_only = ("instance_classifiers.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        embed, feature_dim, width = embedding_layers(reader)
        attention = clam_attention(reader, "global_attn", width)
        classifier = reader.linear("classifier", attention.channels * width)
        self.assemble(embed, attention, classifier, feature_dim=feature_dim)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        last: dict[str, nn.Module] = {"classifier": nn.Linear(FRESH_WIDTH, outputs)}
        return fresh_parts(_fresh_attention(feature_dim) | last)


@architecture(
    "feather_millab",
    keys=("patch_embed.0.weight", ATTENTION, "!classifier.weight"),
    row=151,
)
class FeatherMillab(Head):
    """FEATHER, the slide encoder: ABMIL without a classifier, so the pooled vector is the answer.

    Source:
        mahmoodlab/MIL-Lab, src/models/abmil.py with num_classes=0 (layout only).
    """

    kind = "pooling"

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        embed, feature_dim, width = embedding_layers(reader)
        self.embed, self.attention = embed, clam_attention(reader, "global_attn", width)
        self.feature_dim, self.value_dim = feature_dim, width
        self.channels = self.attention.channels
        self.outputs = self.channels * width

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.embed(features)
        return h, self.attention(h)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(_fresh_attention(feature_dim))


def _fresh_attention(feature_dim: int) -> dict[str, nn.Module]:
    return {
        "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
        "global_attn.attention_a.0": nn.Linear(FRESH_WIDTH, MILLAB_HIDDEN),
        "global_attn.attention_b.0": nn.Linear(FRESH_WIDTH, MILLAB_HIDDEN),
        "global_attn.attention_c": nn.Linear(MILLAB_HIDDEN, 1),
    }
