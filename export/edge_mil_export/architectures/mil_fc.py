"""CLAM's baselines that classify each instance and take the top one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError


@architecture("mil_fc", keys=("fc.0.weight", "classifier.weight"), row=40)
class MilFc(Head):
    """Two classes: the logits of the instance with the largest probability of the second.

    Instances are compared by their log-odds, which never saturate. The official float32 softmax
    rounds probabilities near 1 to 1, and then takes any of the tied instances: on such a bag its
    answer can be another instance, and with several classes another class.

    Source:
        mahmoodlab/CLAM, models/model_mil.py, `MIL_fc`.
    """

    readings = ("classification",)
    last: ClassVar[str] = "classifier"
    any_class: ClassVar[bool] = False

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "top_class" if self.any_class else "top_positive"
        self.first = reader.linear("fc.0")
        self.classifier = reader.linear(self.last, self.first.out_features)
        self.feature_dim, self.outputs = self.first.in_features, self.classifier.out_features
        self.value_dim, self.channels = self.outputs, 0
        if self.outputs < 2 or (self.outputs > 2 and not self.any_class):
            raise ArchitectureError(
                f"it has {self.outputs} outputs, and should have "
                f"{'two or more' if self.any_class else 'two'}"
            )

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.classifier(torch.relu(self.first(features)))
        return logits, logits

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits, _ = self.attend(features)
        chances = torch.log_softmax(logits.double(), dim=1)
        ranked = chances.amax(dim=1) if self.any_class else chances[:, 1]
        return logits[ranked.argmax()]

    def describe(self) -> str:
        return "ties of saturated float32 probabilities told apart by log-odds"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "fc.0": nn.Linear(feature_dim, FRESH_WIDTH),
                cls.last: nn.Linear(FRESH_WIDTH, outputs),
            }
        )


@architecture("mil_fc_mc", keys=("fc.0.weight", "classifiers.weight"), row=41)
class MilFcMc(MilFc):
    """Several classes: the logits of the instance with the largest probability of any class.

    Source:
        mahmoodlab/CLAM, models/model_mil.py, `MIL_fc_mc`.
    """

    last = "classifiers"
    any_class = True
