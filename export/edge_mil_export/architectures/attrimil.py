"""AttriMIL: each class has its own attention and its own score of an instance."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.clam import clam_attention
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import FRESH_HIDDEN, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


@architecture(
    "attrimil",
    keys=("adaptor.0.weight", "attention_nets.0.attention_c.weight", "classifiers.0.weight"),
    row=15,
)
class AttriMil(Head):
    """The attention-weighted mean of the instances' scores for each class, plus a bias.

    The official code takes exp of the attention logits as they are, which is NaN beyond logits of
    88; here the largest is taken off first, so that the score stays finite and is the same.

    Source:
        Cai et al. 2024, arXiv:2404.00351; MedCAI/AttriMIL, models/AttriMIL.py.
    """

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "multihead"
        down = reader.linear("adaptor.0")
        width = down.in_features
        self.adaptor = nn.Sequential(
            down, nn.ReLU(), reader.linear("adaptor.2", down.out_features, width)
        )
        numbers = reader.indices("attention_nets.")
        self.attentions = nn.ModuleList(
            clam_attention(reader, f"attention_nets.{c}", width) for c in numbers
        )
        self.scores = nn.ModuleList(reader.linear(f"classifiers.{c}", width, 1) for c in numbers)
        self.bias = nn.Parameter(reader.tensor("bias", len(numbers)).clone())
        self.feature_dim = width
        self.value_dim = self.channels = self.outputs = len(numbers)

    @property
    def pooled_rows(self) -> int:
        return 1

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each class' score (n, c) and attention logit (n, c)."""
        h = features + self.adaptor(features)
        scores = torch.cat([score(h) for score in self.scores], dim=1)
        return scores, torch.cat([attention(h) for attention in self.attentions], dim=1)

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled.flatten(1) + self.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scores, logits = self.attend(features)
        return (torch.softmax(logits, dim=0) * scores).sum(dim=0) + self.bias

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "adaptor.0": nn.Linear(feature_dim, FRESH_HIDDEN),
            "adaptor.2": nn.Linear(FRESH_HIDDEN, feature_dim),
        }
        for c in range(outputs):
            at = f"attention_nets.{c}"
            parts[f"{at}.attention_a.0"] = nn.Linear(feature_dim, FRESH_HIDDEN)
            parts[f"{at}.attention_b.0"] = nn.Linear(feature_dim, FRESH_HIDDEN)
            parts[f"{at}.attention_c"] = nn.Linear(FRESH_HIDDEN, 1)
            parts[f"classifiers.{c}"] = nn.Linear(feature_dim, 1)
        return fresh_parts(parts) | {"bias": torch.zeros(outputs)}
