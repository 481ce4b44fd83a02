"""DTFD-MIL: two tiers of attention, over pseudo-bags and over what each of them gives."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil.errors import UsageError
from edge_mil_export.architectures.acmil import DimReduction, acmil_attention
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


def pseudo_bags(options: Options) -> tuple[str, int, int]:
    """Return what each pseudo-bag gives, how many there are, and the instances of a side.

    Raises:
        UsageError: There is not one instance for each pseudo-bag.
    """
    distill, groups = options["distill"], int(options["groups"])
    each = int(options.get("instances", groups)) // groups
    if distill != "afs" and each == 0:
        raise UsageError(
            f"instances={options['instances']} over groups={groups} leaves none for each "
            f"pseudo-bag, and distill={distill} needs at least one; name instances of {groups} or "
            "more."
        )
    return distill, groups, each


@architecture(
    "dtfd",
    keys=("dim_reduction.fc1.weight", "att_classifier.attention.attention_weights.weight"),
    row=10,
)
class Dtfd(Head):
    """Two tiers of gated attention: over pseudo-bags, then over what each of them gives.

    Source:
        Zhang et al. 2022, arXiv:2203.12081; hrzhang1123/DTFD-MIL, Main_DTFD_MIL.py and Model/.
    """

    options = (
        Option("distill", ("afs", "maxs", "maxmins"), "what each pseudo-bag gives"),
        Option("groups", INTEGER, "the division into pseudo-bags"),
        Option("instances", INTEGER, "how many instances maxs and maxmins take"),
        Option("mean_inference", INTEGER, "over how many divisions is averaged", "1"),
    )

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.distill, self.groups, self.each = pseudo_bags(options)
        self.pooling = "dtfd"
        if self.distill != "afs":
            self.extra_outputs = ("class_scores",)  # type: ignore[misc] # only where they choose
        self.embed = DimReduction(reader, "dim_reduction")
        width = self.embed.fc1.out_features
        self.attention = acmil_attention(reader, "attention", width)
        self.first = reader.linear("classifier.fc", width)
        self.second = acmil_attention(reader, "att_classifier.attention", width)
        self.last = reader.linear("att_classifier.classifier.fc", width)
        self.feature_dim, self.value_dim = self.embed.fc1.in_features, width
        self.channels, self.outputs = 1, self.last.out_features
        # Which instances go on depends on the others of a pseudo-bag with three classes or more.
        self.incremental = "mergeable" if self.distill == "afs" or self.outputs <= 2 else "banked"

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings, the first tier's attention logits and, but for afs, W h without b."""
        h = self.embed(features)
        found = h, self.attention(h)
        return found if self.distill == "afs" else (*found, h @ self.first.weight.T)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) of a bag (n, d), its rows dealt to the groups in turn."""
        h, logits, *scores = self.attend(features)
        vectors = []
        for group in range(self.groups):
            rows = h[group :: self.groups]
            if rows.shape[0] == 0:
                vectors += [h.new_zeros(1, self.value_dim)] if self.distill == "afs" else []
                continue
            weights = torch.softmax(logits[group :: self.groups], dim=0)
            if self.distill == "afs":
                vectors.append(weights.T @ rows)
                continue
            chances = torch.softmax(weights * scores[0][group :: self.groups], dim=1)[:, -1]
            order = torch.argsort(chances, descending=True)
            vectors.append(rows[order[: self.each]])
            if self.distill == "maxmins":
                vectors.append(rows[order[-self.each :]])
        distilled = torch.cat(vectors)
        weights = torch.softmax(self.second(distilled), dim=0)
        found: torch.Tensor = self.last(weights.T @ distilled)[0]
        return found

    def arrays(self) -> Arrays:
        second = {"branch": self.second.branch, "gate": self.second.gate}
        return arrays_of(second | {"attention": self.second.last, "classifier": self.last})

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        made: dict[str, nn.Module] = {
            "dim_reduction.fc1": nn.Linear(feature_dim, FRESH_WIDTH, bias=False),
            "classifier.fc": nn.Linear(FRESH_WIDTH, outputs),
            "att_classifier.classifier.fc": nn.Linear(FRESH_WIDTH, outputs),
        }
        for at in ("attention", "att_classifier.attention"):
            made[f"{at}.attention_V.0"] = nn.Linear(FRESH_WIDTH, FRESH_HIDDEN)
            made[f"{at}.attention_U.0"] = nn.Linear(FRESH_WIDTH, FRESH_HIDDEN)
            made[f"{at}.attention_weights"] = nn.Linear(FRESH_HIDDEN, 1)
        return fresh_parts(made)
