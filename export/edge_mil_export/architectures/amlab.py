"""ABMIL and gated ABMIL as AttentionDeepMIL, their first code, writes them."""

from __future__ import annotations

from torch import nn

from edge_mil_export.architectures.head import AttentionHead, Options, gated
from edge_mil_export.architectures.layout import Layout
from edge_mil_export.architectures.registry import architecture


class _Amlab(AttentionHead):
    """Attention over the 500 numbers that the network's own convolutions give.

    The convolutions (`feature_extractor_part*`) are an extractor for 28 x 28 images and are left
    out: the aggregator starts at their output. The model's own sigmoid is that of `probabilities`.

    Source:
        Ilse, Tomczak and Welling 2018, arXiv:1802.04712; AMLab-Amsterdam/AttentionDeepMIL,
        model.py; `aggregators.md`, 4.1.
    """

    training_only = ("feature_extractor_part1.", "feature_extractor_part2.")
    sigmoid = True
    names: tuple[str, str, str]

    def __init__(self, layout: Layout, options: Options) -> None:
        super().__init__(layout, options)
        branch, gate, last = self.names
        width = layout.tensor(f"{branch}.weight", None, None).shape[1]
        attention = gated(layout, branch, gate, last, width)
        classifier = layout.linear("classifier.0", attention.channels * width)
        self.assemble(nn.Identity(), attention, classifier, feature_dim=width)


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
