"""SC-MIL of "Supervised Contrastive": gated attention, and a projection that only training uses."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


@architecture(
    "sc_mil_contrastive",
    keys=("embed.0.weight", "attention_V.0.weight", "classifier.weight"),
    row=137,
)
class ScMilContrastive(AttentionHead):
    """Gated ABMIL; `projection` feeds the contrastive loss and is no part of the score.

    Another paper's SC-MIL, "Sparsely Coded", is `sc_mil_sparse`. No public code is known, so the
    names of the keys are ours and the tests compare with a slow reference.

    Source:
        Juyal et al. 2023, arXiv:2303.13405.
    """

    training_only = ("projection.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("embed.0")
        width = first.out_features
        names = ("attention_V.0", "attention_U.0", "attention_weights")
        attention = gated(reader, *names, width)
        classifier = reader.linear("classifier", attention.channels * width)
        embed = nn.Sequential(first, nn.ReLU())
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "attention_V.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention_U.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention_weights": nn.Linear(FRESH_HIDDEN, 1),
                "classifier": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
