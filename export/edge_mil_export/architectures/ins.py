"""The bag head of INS."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, Options, gated
from edge_mil_export.architectures.nystrom import fresh_parts
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FULL = "model_teacherHead."
FRESH_WIDTH, FRESH_HIDDEN = 64, 32
"""The official 1024 and 512, scaled."""


@architecture(
    "ins",
    keys=(
        f"{FULL}attention.2.weight|classifier.4.weight",
        f"{FULL}top_layer.weight|top_layer.weight",
    ),
    row=180,
    aliases={"ins_head": {}},
)
class Ins(AttentionHead):
    """Two embedding layers with relu, attention, `top_layer`; the encoder is an extractor.

    Source:
        Qu et al. 2024, arXiv:2307.02249; miccaiif/INS, alexnet.py; `aggregators.md`, 4.1.
    """

    training_only = ("encoder_q.", "encoder_k.", "queue", "prototypes", "bag_classifier.")

    def __init__(self, layout: StateDictReader, options: Options) -> None:
        super().__init__(layout, options)
        at = FULL if f"{FULL}attention.2.weight" in layout else ""
        first = layout.linear(f"{at}classifier.1")
        second = layout.linear(f"{at}classifier.4", first.out_features)
        width = second.out_features
        attention = gated(layout, f"{at}attention.0", "", f"{at}attention.2", width)
        classifier = layout.linear(f"{at}top_layer", attention.channels * width)
        embed = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh head of width 64, without the encoder."""
        return fresh_parts(
            {
                "classifier.1": nn.Linear(feature_dim, FRESH_WIDTH),
                "classifier.4": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                "attention.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention.2": nn.Linear(FRESH_HIDDEN, 1),
                "top_layer": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
