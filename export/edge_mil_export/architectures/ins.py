"""INS: the head of the bag, without its encoder."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FULL = "model_teacherHead."


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
        Qu et al. 2024, arXiv:2307.02249; miccaiif/INS, alexnet.py.
    """

    training_only = ("encoder_q.", "encoder_k.", "queue", "prototypes", "bag_classifier.")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        at = FULL if f"{FULL}attention.2.weight" in reader else ""
        first = reader.linear(f"{at}classifier.1")
        second = reader.linear(f"{at}classifier.4", first.out_features)
        width = second.out_features
        attention = gated(reader, f"{at}attention.0", "", f"{at}attention.2", width)
        classifier = reader.linear(f"{at}top_layer", attention.channels * width)
        embed = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "classifier.1": nn.Linear(feature_dim, FRESH_WIDTH),
                "classifier.4": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                "attention.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention.2": nn.Linear(FRESH_HIDDEN, 1),
                "top_layer": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
