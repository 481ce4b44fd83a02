"""ABMIL and gated ABMIL as AttentionDeepMIL, their first code, writes them."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, gated
from edge_mil_export.architectures.layers import fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

AMLAB_HIDDEN = 128
"""As published."""


class _Amlab(AttentionHead):
    """Attention over the 500 numbers that the network's own convolutions give.

    The convolutions (`feature_extractor_part*`) are an extractor for 28 x 28 images and are left
    out: the aggregator starts at their output. The model's own sigmoid is that of `probabilities`.

    Source:
        Ilse, Tomczak and Welling 2018, arXiv:1802.04712; AMLab-Amsterdam/AttentionDeepMIL,
        model.py.
    """

    training_only = ("feature_extractor_part1.", "feature_extractor_part2.")
    sigmoid = True
    names: tuple[str, str, str]

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        branch, gate, last = self.names
        width = reader.tensor(f"{branch}.weight", None, None).shape[1]
        attention = gated(reader, branch, gate, last, width)
        classifier = reader.linear("classifier.0", attention.channels * width)
        self.assemble(nn.Identity(), attention, classifier, feature_dim=width)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        names = [name for name in cls.names[:2] if name]
        hidden = {name: nn.Linear(feature_dim, AMLAB_HIDDEN) for name in names}
        last = {
            cls.names[2]: nn.Linear(AMLAB_HIDDEN, 1),
            "classifier.0": nn.Linear(feature_dim, outputs),
        }
        return fresh_parts({**hidden, **last})


@architecture(
    "abmil_amlab", keys=("feature_extractor_part1.0.weight", "attention.0.weight"), row=50
)
class AbmilAmlab(_Amlab):
    """`Attention`: w . tanh(V h)."""

    names = ("attention.0", "", "attention.2")


@architecture(
    "abmil_gated_amlab", keys=("feature_extractor_part1.0.weight", "attention_V.0.weight"), row=51
)
class AbmilGatedAmlab(_Amlab):
    """`GatedAttention`: w . (tanh(V h) * sigmoid(U h))."""

    names = ("attention_V.0", "attention_U.0", "attention_w")
