"""DSMIL as torchmil writes it: the mean of the bag's logit and the top instance's."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.dsmil import StreamKeys, TwoStreams
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.torchmil.attention import (
    FEATURE_ACTIVATION,
    feature_network,
    feature_width,
)

KEYS = StreamKeys("q_nn", "v_nn", "bag_classifier", is_flat=True)


@architecture(
    "dsmil_torchmil",
    keys=("inst_classifier.weight", "bag_classifier.weight", "q_nn.weight|q_nn.0.weight"),
    row=96,
)
class DsmilTorchmil(TwoStreams):
    """The score is that of `predict`: the mean of the bag's logit and the largest instance's.

    Source:
        Franblueee/torchmil, torchmil/models/dsmil.py.
    """

    options = (FEATURE_ACTIVATION,)
    sigmoid = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        instance = reader.linear("inst_classifier")
        embed = feature_network(reader, options)
        self.feature_dim = feature_width(reader, instance.in_features)
        self.assemble(reader, KEYS, embed, instance, value_activation=nn.ReLU())
        self.pooling = "mhim_dsmil"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean of both streams' logits (1,) of a whole bag (n, d)."""
        bag, top = self.streams(features)
        return 0.5 * bag + 0.5 * top

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        # One class, as published, is a linear layer; several are classified as DSMIL does.
        last = nn.Conv1d(outputs, outputs, FRESH_WIDTH)
        return fresh_parts(
            {
                "feat_ext.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "inst_classifier": nn.Linear(FRESH_WIDTH, outputs),
                "bag_classifier": nn.Linear(FRESH_WIDTH, 1) if outputs == 1 else last,
                "q_nn": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
            }
        )
