"""Attention and deep sets as PORPOISE and MCAT write them, for survival."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.clam import clam_first_attention, fresh_clam
from edge_mil_export.architectures.head import AttentionHead, Head
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


@architecture(
    "porpoise_amil",
    keys=("attention_net.0.weight", "classifier.weight", "!rho.0.weight"),
    row=32,
)
class PorpoiseAmil(AttentionHead):
    """CLAM's embedding and attention, then one classifier.

    Source:
        Chen et al. 2022, doi:10.1016/j.ccell.2022.07.004; mahmoodlab/PORPOISE,
        models/model_porpoise.py (layout only).
    """

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("attention_net.0")
        width = first.out_features
        attention = clam_first_attention(reader, width)
        classifier = reader.linear("classifier", attention.channels * width)
        embed = nn.Sequential(first, nn.ReLU())
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_clam(feature_dim, 1, {"classifier": nn.Linear(FRESH_WIDTH, outputs)})


@architecture(
    "amil_fc_surv",
    keys=("attention_net.0.weight", "classifier.weight", "rho.0.weight"),
    row=31,
)
class AmilFcSurv(AttentionHead):
    """The same with a layer between the pooled vector and the classifier.

    Source:
        Chen et al. 2021, doi:10.1109/ICCV48922.2021.00398; mahmoodlab/PORPOISE,
        models/model_set_mil.py (layout only).
    """

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("attention_net.0")
        width = first.out_features
        attention = clam_first_attention(reader, width)
        rho = reader.linear("rho.0", attention.channels * width)
        classifier = reader.linear("classifier", rho.out_features)
        self.assemble(
            nn.Sequential(first, nn.ReLU()),
            attention,
            classifier,
            feature_dim=first.in_features,
            before_classifier=nn.Sequential(rho, nn.ReLU()),
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        last = {
            "rho.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
            "classifier": nn.Linear(FRESH_HIDDEN, outputs),
        }
        return fresh_clam(feature_dim, 1, last)


@architecture(
    "deep_sets",
    keys=("phi.0.weight", "rho.0.weight", "classifier.weight", "!attention_net.0.weight"),
    row=33,
)
class DeepSets(Head):
    """`relu(rho sum_i relu(phi x_i))`, then a classifier: a sum, which grows with the bag.

    A score before the whole slide was seen is that of a smaller slide, and means nothing else.
    No official output was at hand: tested against the formula.

    Source:
        Zaheer et al. 2017, arXiv:1703.06114; mahmoodlab/PORPOISE, models/model_set_mil.py
        (layout only).
    """

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "sum"
        first = reader.linear("phi.0")
        self.embed = nn.Sequential(first, nn.ReLU())
        rho = reader.linear("rho.0", first.out_features)
        classifier = reader.linear("classifier", rho.out_features)
        self.last = nn.Sequential(rho, nn.ReLU(), classifier)
        self.feature_dim, self.value_dim = first.in_features, first.out_features
        self.channels, self.outputs = 0, classifier.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.embed(features)
        return h, h

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(pooled.flatten(1))
        return logits

    def describe(self) -> str:
        return "a sum over the instances, so that only the whole slide's score means anything"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "phi.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "rho.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "classifier": nn.Linear(FRESH_HIDDEN, outputs),
            }
        )
