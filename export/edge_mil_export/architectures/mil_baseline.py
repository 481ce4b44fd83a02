"""ABMIL's relatives as MIL_BASELINE writes them: additive, information bottleneck, gated."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, activation, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import ACTIVATION, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

GATED_ACTIVATION = Option(
    "activation", ("relu", "gelu", "tanh"), "the embedding and the attention of each instance"
)


@architecture(
    "addmil",
    keys=("feature.0.weight", "attention.2.weight", "instance_classifier.0.weight"),
    row=165,
)
class AddMil(AttentionHead):
    """Additive MIL: the sum of the instances' logits, weighted by their attention.

    The weights sum to 1, so it is the classifier of the pooled embedding.

    Source:
        Javed et al. 2022, arXiv:2206.01794; lingxitong/MIL_BASELINE, modules/ADD_MIL.
    """

    options = (ACTIVATION,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("feature.0")
        width = first.out_features
        attention = gated(reader, "attention.0", "", "attention.2", width)
        classifier = reader.linear("instance_classifier.0", attention.channels * width)
        embed = nn.Sequential(first, activation(options["activation"]))
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "attention.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention.2": nn.Linear(FRESH_HIDDEN, 1),
                "instance_classifier.0": nn.Linear(FRESH_WIDTH, outputs),
            }
        )


@architecture(
    "gabmil_baseline",
    keys=("feature.0.weight", "attention_a.0.weight", "attention_c.weight", "classifier.0.weight"),
    row=166,
)
class GabmilBaseline(AttentionHead):
    """Gated ABMIL, of which the branch has the embedding's activation where others have a tanh.

    Source:
        lingxitong/MIL_BASELINE, modules/GATE_AB_MIL.
    """

    options = (GATED_ACTIVATION,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        name = options["activation"]
        first = reader.linear("feature.0", bias=None)
        width = first.out_features
        attention = gated(
            reader,
            "attention_a.0",
            "attention_b.0",
            "attention_c",
            width,
            bias=None,
            branch_activation=name,
        )
        classifier = reader.linear("classifier.0", attention.channels * width, bias=None)
        embed = nn.Sequential(first, activation(name))
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "attention_a.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention_b.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention_c": nn.Linear(FRESH_HIDDEN, 1),
                "classifier.0": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
