"""ABMIL as ACMIL and AEM write it, and ACMIL's own gated head of several branches."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, GatedAttention, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

State = dict[str, torch.Tensor]


class DimReduction(nn.Module):
    """relu(fc1 x), then residual blocks h + relu(W2 relu(W1 h)), if there are any.

    MIL-Lab's copy calls the layer `fc1.0` and gives it a bias.

    Source:
        dazhangyu123/ACMIL, architecture/network.py.
    """

    def __init__(
        self, reader: StateDictReader, prefix: str, *, first: str = "fc1", bias: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = reader.linear(f"{prefix}.{first}", bias=bias)
        width = self.fc1.out_features
        self.blocks = nn.ModuleList(
            nn.Sequential(
                reader.linear(f"{prefix}.resBlocks.{i}.block.0", width, width, bias=False),
                nn.ReLU(),
                reader.linear(f"{prefix}.resBlocks.{i}.block.2", width, width, bias=False),
                nn.ReLU(),
            )
            for i in reader.indices(f"{prefix}.resBlocks.")
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings (n, l) of features (n, d)."""
        h: torch.Tensor = torch.relu(self.fc1(x))
        for block in self.blocks:
            h = h + block(h)
        return h


FRESH_BRANCHES = 5


def _fresh(feature_dim: int, channels: int, classifier: str, outputs: int) -> State:
    return fresh_parts(
        {
            "dimreduction.fc1": nn.Linear(feature_dim, FRESH_WIDTH, bias=False),
            "attention.attention_V.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
            "attention.attention_U.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
            "attention.attention_weights": nn.Linear(FRESH_HIDDEN, channels),
            classifier: nn.Linear(FRESH_WIDTH, outputs),
        }
    )


def acmil_attention(reader: StateDictReader, at: str, width: int) -> GatedAttention:
    """Build gated attention as ACMIL, AEM and DTFD name it."""
    branch, gate, last = (f"{at}.attention_{part}" for part in ("V.0", "U.0", "weights"))
    return gated(reader, branch, gate, last, width)


@architecture(
    "abmil_acmil",
    keys=(
        "dimreduction.fc1.weight",
        "attention.attention_weights.weight",
        "classifier.fc.weight",
    ),
    row=140,
    aliases={"aem_abmil": {}},
)
class AbmilAcmil(AttentionHead):
    """Gated ABMIL in the repositories of ACMIL and AEM (whose entropy term is a loss only).

    Source:
        dazhangyu123/ACMIL, architecture/transformer.py, `ABMIL`.
    """

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        embed = DimReduction(reader, "dimreduction")
        width = embed.fc1.out_features
        attention = acmil_attention(reader, "attention", width)
        classifier = reader.linear("classifier.fc", attention.channels * width)
        self.assemble(embed, attention, classifier, feature_dim=embed.fc1.in_features)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return _fresh(feature_dim, 1, "classifier.fc", outputs)


@architecture(
    "acmil_ga",
    keys=("Slide_classifier.fc.weight", "attention.attention_weights.weight"),
    row=110,
)
class AcmilGa(AttentionHead):
    """ACMIL with gated attention: the score is that of the mean of its branches.

    The branches' own classifiers (`classifier.t.fc`) and the masking help training only.

    Source:
        Zhang et al. 2024, arXiv:2311.07125; dazhangyu123/ACMIL, architecture/transformer.py,
        `ACMIL_GA`.
    """

    training_only = ("classifier.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        embed = DimReduction(reader, "dimreduction")
        width = embed.fc1.out_features
        attention = acmil_attention(reader, "attention", width)
        classifier = reader.linear("Slide_classifier.fc", width)
        self.assemble(embed, attention, classifier, feature_dim=embed.fc1.in_features)

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the logits of the mean of the branches."""
        logits: torch.Tensor = self.classifier(pooled.mean(dim=1))
        return logits

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return _fresh(feature_dim, FRESH_BRANCHES, "Slide_classifier.fc", outputs)
