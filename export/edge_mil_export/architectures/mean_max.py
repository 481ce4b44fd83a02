"""Mean and max of the instances' class logits: one network, two poolings."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import ACTIVATION, Head, Option, Options, activation
from edge_mil_export.architectures.nystrom import fresh_parts
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FRESH_WIDTH = 64
"""The official 512, scaled."""


@architecture(
    "mean_max_mil",
    keys=("head.0.weight", "head.3.weight|head.2.weight"),
    row=250,
    aliases={"mean_mil": {"pooling": "mean"}, "max_mil": {"pooling": "max"}},
)
class MeanMaxMil(Head):
    """Class logits of each instance, then their mean, or their maximum for each class.

    The two have the same keys. The second layer is `head.3`, or `head.2` without dropout.

    Source:
        isyangshu/MambaMIL, models/Mean_Max_MIL.py; DearCaat/MHIM-MIL, modules/mean_max.py;
        `aggregators.md`, 4.3.
    """

    options = (
        Option("pooling", ("mean", "max"), "how the instances' logits become the slide's"),
        ACTIVATION,
    )

    def __init__(self, layout: StateDictReader, options: Options) -> None:
        super().__init__(layout, options)
        first = layout.linear("head.0")
        last = "head.3" if "head.3.weight" in layout else "head.2"
        second = layout.linear(last, first.out_features)
        self.network = nn.Sequential(first, activation(options["activation"]), second)
        self.pooling = options["pooling"]
        self.feature_dim, self.channels = first.in_features, 0
        self.value_dim = self.outputs = second.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class logits of each instance."""
        values = self.network(features)
        return values, values

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh network of width 64."""
        return fresh_parts(
            {
                "head.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "head.3": nn.Linear(FRESH_WIDTH, outputs),
            }
        )

    @classmethod
    def full_name(cls, name: str, options: Options) -> str:
        """Return mean_mil or max_mil."""
        return f"{options['pooling']}_mil"
