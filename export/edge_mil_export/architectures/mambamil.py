"""ABMIL and gated ABMIL as MambaMIL's repository writes them."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, activation, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import ACTIVATION, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


class _Mambamil(AttentionHead):
    """One embedding layer, attention, a classifier.

    Source:
        isyangshu/MambaMIL, models/ABMIL.py.
    """

    options = (ACTIVATION,)
    names: tuple[str, str, str]

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("feature.0")
        width = first.out_features
        attention = gated(reader, *self.names, width)
        classifier = reader.linear("classifier.0", attention.channels * width)
        embed = nn.Sequential(first, activation(options["activation"]))
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        hidden = {name: nn.Linear(FRESH_WIDTH, FRESH_HIDDEN) for name in cls.names[:2] if name}
        others = {
            "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
            cls.names[2]: nn.Linear(FRESH_HIDDEN, 1),
            "classifier.0": nn.Linear(FRESH_WIDTH, outputs),
        }
        return fresh_parts({**hidden, **others})


@architecture(
    "abmil_mambamil",
    keys=("feature.0.weight", "attention.2.weight", "classifier.0.weight"),
    row=170,
)
class AbmilMambamil(_Mambamil):
    """`DAttention`; the official forward fails on one instance, where ours returns it."""

    names = ("attention.0", "", "attention.2")


@architecture(
    "gabmil_mambamil",
    keys=("feature.0.weight", "attention_weights.weight", "classifier.0.weight"),
    row=160,
)
class GabmilMambamil(_Mambamil):
    """The gated one."""

    names = ("attention_V.0", "attention_U.0", "attention_weights")
