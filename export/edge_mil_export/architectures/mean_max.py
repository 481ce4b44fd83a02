"""Mean and max of the instances' class logits: one network, two poolings."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import Head, activation
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import ACTIVATION, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


@architecture(
    "mean_max_mil",
    keys=("head.0.weight", "head.3.weight|head.2.weight|classifier.weight"),
    row=250,
    aliases={"mean_mil": {"pooling": "mean"}, "max_mil": {"pooling": "max"}},
)
class MeanMaxMil(Head):
    """Class logits of each instance, then their mean, or their maximum for each class.

    The two have the same keys. The second layer is `head.3`, or `head.2` without dropout, or
    `classifier` in MIL_BASELINE.

    Source:
        isyangshu/MambaMIL, models/Mean_Max_MIL.py; DearCaat/MHIM-MIL, modules/mean_max.py;
        lingxitong/MIL_BASELINE, modules/MEAN_MIL and modules/MAX_MIL.
    """

    options = (
        Option("pooling", ("mean", "max"), "how the instances' logits become the slide's"),
        ACTIVATION,
    )

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("head.0")
        names = ("head.3", "head.2", "classifier")
        last = next(name for name in names if f"{name}.weight" in reader)
        second = reader.linear(last, first.out_features)
        self.network = nn.Sequential(first, activation(options["activation"]), second)
        self.pooling = options["pooling"]
        self.feature_dim, self.channels = first.in_features, 0
        self.value_dim = self.outputs = second.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.network(features)
        return values, values

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "head.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "head.3": nn.Linear(FRESH_WIDTH, outputs),
            }
        )

    @classmethod
    def full_name(cls, name: str, options: Options) -> str:
        return f"{options['pooling']}_mil"
