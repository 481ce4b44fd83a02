"""CHIEF: CLAM's attention, over the raw features or with the organ's embedding."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.clam import clam_first_attention, fresh_clam
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import FRESH_WIDTH
from edge_mil_export.architectures.options import Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

ORGANS, TEXT_WIDTH = 19, 768
"""Rows of `organ_embedding`, and their width: a text encoder's."""


@architecture(
    "chief",
    keys=("attention_net.0.weight", "organ_embedding", "text_to_vision.0.weight"),
    row=25,
)
class Chief(Head):
    """The slide's feature (the attention over the raw features), or the classes of an organ.

    `att_head` and `instance_classifiers` are for training only.

    Source:
        Wang et al. 2024, doi:10.1038/s41586-024-07894-z; hms-dbmi/CHIEF, models/CHIEF.py
        (layout only).
    """

    options = (
        Option("output", ("pooled", "logits"), "what the slide's answer is"),
        Option(
            "anatomic",
            tuple(str(organ) for organ in range(ORGANS)),
            "the organ whose embedding joins the slide's",
            only_with=("output", ("logits",)),
        ),
    )
    training_only = ("att_head.", "instance_classifiers.")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("attention_net.0")
        width = first.out_features
        self.embed = nn.Sequential(first, nn.ReLU())
        self.attention = clam_first_attention(reader, width)
        self.classifier = reader.linear("classifiers", width)
        to_vision = reader.linear("text_to_vision.0", None, width)
        organs = reader.tensor("organ_embedding", None, to_vision.in_features)
        self.feature_dim, self.channels = first.in_features, 1
        self.is_pooled = options["output"] == "pooled"
        if self.is_pooled:
            self.kind = "pooling"
            self.value_dim = self.outputs = self.feature_dim
        else:
            with torch.no_grad():
                organ = torch.relu(to_vision(organs[int(options["anatomic"])]))
            self.organ = nn.Parameter(organ)
            self.value_dim, self.outputs = width, self.classifier.out_features

    @property
    def has_classifier(self) -> bool:
        return not self.is_pooled

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.embed(features)
        return features if self.is_pooled else h, self.attention(h)

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        flat = pooled.flatten(1)
        return flat if self.is_pooled else self.classifier(flat + self.organ)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts = {
            "classifiers": nn.Linear(FRESH_WIDTH, outputs),
            "text_to_vision.0": nn.Linear(TEXT_WIDTH, FRESH_WIDTH),
        }
        organs = {"organ_embedding": torch.randn(ORGANS, TEXT_WIDTH)}
        return fresh_clam(feature_dim, 1, parts) | organs
