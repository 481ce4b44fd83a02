"""DSMIL as MIL-Lab writes it: over an embedding, with a norm of each class' row."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.dsmil import StreamKeys, TwoStreams
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.millab.attention import embedding_layers
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

KEYS = StreamKeys("b_classifier.q", "b_classifier.v", "classifier", norm="b_classifier.norm")


@architecture(
    "dsmil_millab",
    keys=(
        "patch_embed.0.weight",
        "i_classifier.inst_classifier.weight",
        "b_classifier.norm.weight",
    ),
    row=95,
)
class DsmilMillab(TwoStreams):
    """Its logits are the mean of the bag's and the largest instances'.

    No relu follows the value layer. `b_classifier.fcc` is in the file and the official class never
    uses it.

    Source:
        mahmoodlab/MIL-Lab, src/models/dsmil.py (layout only).
    """

    training_only = ("b_classifier.fcc.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        embed, self.feature_dim, width = embedding_layers(reader)
        instance = reader.linear("i_classifier.inst_classifier", width)
        self.assemble(reader, KEYS, embed, instance, value_activation=nn.Identity())
        self.pooling = "mhim_dsmil"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean of both streams' logits (c,) of a whole bag (n, d)."""
        bag, top = self.streams(features)
        return 0.5 * bag + 0.5 * top

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "i_classifier.inst_classifier": nn.Linear(FRESH_WIDTH, outputs),
                "b_classifier.q": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "b_classifier.v.1": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                "b_classifier.norm": nn.LayerNorm(FRESH_WIDTH),
                "classifier": nn.Conv1d(outputs, outputs, FRESH_WIDTH),
            }
        )
