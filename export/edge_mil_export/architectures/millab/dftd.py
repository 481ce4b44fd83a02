"""DFTD as MIL-Lab writes it: the attention logits of both tiers are the weights themselves."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.acmil import DimReduction
from edge_mil_export.architectures.clam import clam_attention
from edge_mil_export.architectures.dtfd import pseudo_bags
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import (
    FRESH_HIDDEN,
    FRESH_WIDTH,
    Arrays,
    arrays_of,
    fresh_parts,
)
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

DISTILL = Option("distill", ("afs", "maxs", "maxmins"), "what each pseudo-bag gives")
GROUPS = Option("groups", INTEGER, "the division into pseudo-bags")
INSTANCES = Option(
    "instances",
    INTEGER,
    "how many instances maxs and maxmins take",
    only_with=("distill", ("maxs", "maxmins")),
)


@architecture(
    "dftd_millab",
    keys=("patch_embed.fc1.0.weight", "attCls.classifier.fc.weight"),
    row=11,
)
class DftdMillab(Head):
    """Weighted sums over pseudo-bags, or their top instances, and a weighted sum of what they give.

    Source:
        mahmoodlab/MIL-Lab, src/models/dftd.py (layout only).
    """

    options = (DISTILL, GROUPS, INSTANCES)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.distill, self.groups, self.each = pseudo_bags(options)
        self.pooling = "dtfd_linear"
        if self.distill != "afs":
            self.extra_outputs = ("class_scores",)  # type: ignore[misc] # only where they choose
        self.embed = DimReduction(reader, "patch_embed", first="fc1.0", bias=True)
        width = self.embed.fc1.out_features
        self.attention = clam_attention(reader, "attention", width)
        self.first = reader.linear("classifier.fc", width)
        self.second = clam_attention(reader, "attCls.global_attn", width)
        self.last = reader.linear("attCls.classifier.fc", width)
        self.feature_dim, self.value_dim = self.embed.fc1.in_features, width
        self.channels, self.outputs = 1, self.last.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings, the first tier's attention logits and, but for afs, W h without b."""
        h = self.embed(features)
        found = h, self.attention(h)
        return found if self.distill == "afs" else (*found, h @ self.first.weight.T)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) of a bag (n, d), its rows dealt to the groups in turn."""
        h, weights, *scores = self.attend(features)
        vectors = []
        for group in range(self.groups):
            rows, of_rows = h[group :: self.groups], weights[group :: self.groups]
            if self.distill == "afs":
                vectors.append(of_rows.T @ rows)
                continue
            chances = torch.softmax(of_rows * scores[0][group :: self.groups], dim=1)[:, -1]
            order = torch.argsort(chances, descending=True)
            vectors.append(rows[order[: self.each]])
            if self.distill == "maxmins":
                vectors.append(rows[order[-self.each :]])
        distilled = torch.cat(vectors)
        found: torch.Tensor = self.last(self.second(distilled).T @ distilled)[0]
        return found

    def arrays(self) -> Arrays:
        second = {"branch": self.second.branch, "gate": self.second.gate}
        return arrays_of({**second, "attention": self.second.last, "classifier": self.last})

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        made: dict[str, nn.Module] = {
            "patch_embed.fc1.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "classifier.fc": nn.Linear(FRESH_WIDTH, outputs),
            "attCls.classifier.fc": nn.Linear(FRESH_WIDTH, outputs),
        }
        for at in ("attention", "attCls.global_attn"):
            made[f"{at}.attention_a.0"] = nn.Linear(FRESH_WIDTH, FRESH_HIDDEN)
            made[f"{at}.attention_b.0"] = nn.Linear(FRESH_WIDTH, FRESH_HIDDEN)
            made[f"{at}.attention_c"] = nn.Linear(FRESH_HIDDEN, 1)
        return fresh_parts(made)
