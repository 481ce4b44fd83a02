"""CLAM with one branch (SB) and with one for each class (MB)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from edge_mil_export.architectures.head import AttentionHead, GatedAttention, gated
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

State = dict[str, torch.Tensor]


def fresh_clam(feature_dim: int, channels: int, classifiers: Mapping[str, nn.Module]) -> State:
    """Return a fresh embedding and gated attention, and the classifiers that are given."""
    parts: dict[str, nn.Module] = {
        "attention_net.0": nn.Linear(feature_dim, FRESH_WIDTH),
        "attention_net.3.attention_a.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
        "attention_net.3.attention_b.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
        "attention_net.3.attention_c": nn.Linear(FRESH_HIDDEN, channels),
    }
    return fresh_parts({**parts, **classifiers})


def clam_attention(reader: StateDictReader, at: str, width: int) -> GatedAttention:
    """Build the attention network as CLAM and MIL-Lab name it, with or without a gate."""
    if f"{at}.attention_c.weight" in reader:
        names = (f"{at}.attention_a.0", f"{at}.attention_b.0", f"{at}.attention_c")
    else:
        last = max(reader.indices(f"{at}.module."), default=0)
        names = (f"{at}.module.0", "", f"{at}.module.{last}")
    return gated(reader, *names, width)


def clam_first_attention(reader: StateDictReader, width: int) -> GatedAttention:
    """Build the attention network; its index is 3, or 2 where there was no dropout before it."""
    for index in reader.indices("attention_net."):
        at = f"attention_net.{index}"
        if f"{at}.attention_c.weight" in reader or f"{at}.module.0.weight" in reader:
            return clam_attention(reader, at, width)
    raise ArchitectureError("it lacks attention_net.3.attention_a.0.weight")


class _Clam(AttentionHead):
    """`relu(attention_net.0 x)`, gated or plain attention, a classifier.

    Source:
        Lu et al. 2021, doi:10.1038/s41551-020-00682-w; mahmoodlab/CLAM, models/model_clam.py
        (layout only).
    """

    training_only = ("instance_classifiers.",)

    def _assemble(self, reader: StateDictReader, classifier: Sequence[str]) -> None:
        first = reader.linear("attention_net.0")
        width = first.out_features
        attention = clam_first_attention(reader, width)
        rows = [reader.linear(name, width) for name in classifier]
        if attention.channels not in (1, len(rows)) or (len(rows) > 1 and attention.channels == 1):
            raise ArchitectureError(
                f"it has {attention.channels} attention channels and {len(rows)} classifiers"
            )
        stacked = nn.Linear(width, sum(row.out_features for row in rows))
        with torch.no_grad():
            stacked.weight.copy_(torch.cat([row.weight for row in rows]))
            stacked.bias.copy_(torch.cat([row.bias for row in rows]))
        embed = nn.Sequential(first, nn.ReLU())
        self.assemble(embed, attention, stacked, feature_dim=first.in_features)


@architecture(
    "clam_mb",
    keys=("attention_net.0.weight", "classifiers.0.weight"),
    row=20,
)
class ClamMb(_Clam):
    """One attention channel and one row of the classifier for each class."""

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self._assemble(reader, [f"classifiers.{i}" for i in reader.indices("classifiers.")])

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logit c from the pooled vector of channel c."""
        return (pooled * self.classifier.weight).sum(dim=2) + self.classifier.bias

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        rows: dict[str, nn.Module] = {
            f"classifiers.{c}": nn.Linear(FRESH_WIDTH, 1) for c in range(outputs)
        }
        return fresh_clam(feature_dim, outputs, rows)


@architecture(
    "clam_sb",
    keys=("attention_net.0.weight", "classifiers.weight", "!organ_embedding"),
    row=30,
)
class ClamSb(_Clam):
    """One attention channel for all classes."""

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self._assemble(reader, ["classifiers"])

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_clam(feature_dim, 1, {"classifiers": nn.Linear(FRESH_WIDTH, outputs)})
