"""STAMP's linear and multi-layer classifiers of the mean feature."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.instance_scores import relu_layers
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


@architecture(
    "stamp_mlp",
    keys=("mlp.0.weight|fc.weight",),
    row=260,
    aliases={"stamp_linear": {}},
)
class StampMlp(Head):
    """The mean of the raw features, then linear layers with a relu between them, or just one.

    Source:
        KatherLab/STAMP, src/stamp/modeling/models/mlp.py.
    """

    has_attend = False

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.channels = "mean", 0
        if "fc.weight" in reader:
            layer = reader.linear("fc")
            self.network: nn.Module = layer
            self.feature_dim, self.outputs = layer.in_features, layer.out_features
        else:
            self.network, self.feature_dim, self.outputs = relu_layers(reader, "mlp")
        self.value_dim = self.feature_dim

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return features, features

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(pooled.flatten(1))
        return logits

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "mlp.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "mlp.3": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
