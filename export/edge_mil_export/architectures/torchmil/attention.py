"""ABMIL and CLAM-SB as torchmil writes them."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, GatedAttention, activation, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FEATURE_ACTIVATION = Option(
    "feature_activation",
    ("relu", "gelu", "tanh", "none"),
    "the embedding of each instance",
    matters=lambda state: "feat_ext.0.weight" in state,
)
ATTENTION_ACTIVATION = Option(
    "attention_activation", ("tanh", "relu", "gelu"), "the attention of each instance"
)


def feature_network(reader: StateDictReader, options: Options) -> nn.Sequential:
    """Return `feat_ext`, the user's own layers before the head, or nothing.

    Args:
        reader: The state dict.
        options: Name the activation after each layer.
    """
    layers: list[nn.Module] = []
    for index in reader.indices("feat_ext."):
        name = options["feature_activation"]
        inputs = layers[-2].out_features if layers else None
        layer = reader.linear(f"feat_ext.{index}", inputs, bias=None)  # type: ignore[arg-type] # a linear layer's
        layers += [layer, nn.Identity() if name == "none" else activation(name)]
    return nn.Sequential(*(layers or [nn.Identity()]))


def feature_width(reader: StateDictReader, width: int) -> int:
    """Return the width of a feature, given that of an embedding."""
    if "feat_ext.0.weight" not in reader:
        return width
    return reader.tensor("feat_ext.0.weight", None, None).shape[1]


def torchmil_attention(
    reader: StateDictReader, at: str, branch_activation: str
) -> tuple[GatedAttention, int]:
    """Return an attention network with or without a gate, and the width that it takes."""
    width = reader.tensor(f"{at}.fc1.module.weight", None, None).shape[1]
    gate = f"{at}.fc_gated.module" if f"{at}.fc_gated.module.weight" in reader else ""
    names = (f"{at}.fc1.module", gate, f"{at}.fc2")
    found = gated(reader, *names, width, bias=None, branch_activation=branch_activation)
    return found, width


@architecture(
    "abmil_torchmil",
    keys=("pool.fc1.module.weight", "pool.fc2.weight", "classifier.module.weight"),
    row=140,
    aliases={"clam_sb_torchmil": {}},
)
class AbmilTorchmil(AttentionHead):
    """Attention pooling and one bag logit; CLAM-SB's `inst_classifiers` are for training only.

    Source:
        Franblueee/torchmil, torchmil/models/abmil.py and torchmil/models/clam.py.
    """

    options = (ATTENTION_ACTIVATION, FEATURE_ACTIVATION)
    training_only = ("inst_classifiers.",)
    sigmoid = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        attention, width = torchmil_attention(reader, "pool", options["attention_activation"])
        embed = feature_network(reader, options)
        classifier = reader.linear("classifier.module", attention.channels * width, bias=None)
        self.assemble(embed, attention, classifier, feature_dim=feature_width(reader, width))

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "feat_ext.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "pool.fc1.module": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "pool.fc_gated.module": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "pool.fc2": nn.Linear(FRESH_HIDDEN, 1, bias=False),
                "classifier.module": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
