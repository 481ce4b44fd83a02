"""ABMIL as MHIM-MIL's repository writes it, and MHIM-MIL's own attention form."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil.errors import NotThereYetError
from edge_mil_export.architectures.head import (
    ACTIVATION,
    AttentionHead,
    Option,
    Options,
    activation,
    gated,
)
from edge_mil_export.architectures.layout import Layout
from edge_mil_export.architectures.nystrom import fresh_parts
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.errors import ArchitectureError

FRESH_WIDTH, FRESH_HIDDEN = 64, 32
"""The official 512 and 128, scaled."""


@architecture(
    "abmil_mhim_repo",
    keys=("feature.0.weight", "attention.2.weight", "classifier.weight"),
    row=171,
)
class AbmilMhimRepo(AttentionHead):
    """`DAttention` with the repository's norms and biases, all of which the keys tell.

    A layer norm before the embedding is `feature.0` and moves the layer to `feature.1`; a norm
    after it, or a batch norm, is `norm`; `norm1` acts on the pooled vector.

    Source:
        DearCaat/MHIM-MIL, modules/abmil.py; `aggregators.md`, 4.1. No official output of the
        variants with norms was at hand.
    """

    options = (ACTIVATION,)

    def __init__(self, layout: Layout, options: Options) -> None:
        super().__init__(layout, options)
        if "feature.1.weight" in layout:
            feature_dim = layout.tensor("feature.1.weight", None, None).shape[1]
            before: nn.Module = layout.layer_norm("feature.0", feature_dim)
            first = layout.linear("feature.1", feature_dim, bias=None)
        else:
            before = nn.Identity()
            first = layout.linear("feature.0", bias=None)
            feature_dim = first.in_features
        width = first.out_features
        after: nn.Module = nn.Identity()
        if "norm.running_mean" in layout:
            if feature_dim == width:
                raise ArchitectureError(
                    "its batch norm may lie before or after the embedding, since both are "
                    f"{width} wide, and the file does not say which"
                )
            if len(layout.tensor("norm.weight", None)) == width:
                after = layout.batch_norm("norm", width)
            else:
                before = layout.batch_norm("norm", feature_dim)
        elif "norm.weight" in layout:
            after = layout.layer_norm("norm", width)
        attention = gated(layout, "attention.0", "", "attention.2", width, bias=None)
        if "norm1.running_mean" in layout:
            last: nn.Module = layout.batch_norm("norm1", attention.channels * width)
        elif "norm1.weight" in layout:
            last = layout.layer_norm("norm1", attention.channels * width)
        else:
            last = nn.Identity()
        classifier = layout.linear("classifier", attention.channels * width, bias=None)
        embed = nn.Sequential(before, first, activation(options["activation"]), after)
        self.assemble(embed, attention, classifier, feature_dim=feature_dim, before_classifier=last)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh head of width 64, without norms."""
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "attention.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention.2": nn.Linear(FRESH_HIDDEN, 1),
                "classifier": nn.Linear(FRESH_WIDTH, outputs),
            }
        )


@architecture(
    "mhim_abmil",
    keys=(
        "online_encoder.attention.attention.0.weight|online_encoder.attention.attention_a.0.weight"
        "|online_encoder.attention.attention_a.weight",
        "predictor.weight",
    ),
    row=80,
)
class MhimAbmil(AttentionHead):
    """MHIM-MIL over attention: `forward_test` of the student or the teacher.

    The masking is training only, and so is `merge.*` unless its authors' test merges.

    Source:
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py; `aggregators.md`,
        4.1 and 4.5.
    """

    options = (
        ACTIVATION,
        Option("attention_activation", ("relu", "gelu", "tanh"), "the attention of each instance"),
        Option("merge_test", ("true", "false"), "the pooled vector", "false"),
    )
    training_only = ("merge.",)

    def __init__(self, layout: Layout, options: Options) -> None:
        super().__init__(layout, options)
        if options["merge_test"] == "true":
            raise NotThereYetError(
                "merge_test=true is not there yet: it comes with the next release; without it "
                "the score is that of the authors' default test."
            )
        first = layout.linear("feature.0", bias=None)
        width = first.out_features
        at = "online_encoder.attention"
        names = (f"{at}.attention.0", "", f"{at}.attention.2")
        if f"{at}.attention_c.weight" in layout:
            tail = "" if f"{at}.attention_a.weight" in layout else ".0"
            names = (f"{at}.attention_a{tail}", f"{at}.attention_b{tail}", f"{at}.attention_c")
        bend = options["attention_activation"]
        attention = gated(layout, *names, width, bias=None, bend=bend)
        classifier = layout.linear("predictor", attention.channels * width, bias=None)
        embed = nn.Sequential(first, activation(options["activation"]))
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh student of width 64, without what merges."""
        at = "online_encoder.attention.attention"
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
                f"{at}.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN, bias=False),
                f"{at}.2": nn.Linear(FRESH_HIDDEN, 1, bias=False),
                "predictor": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
