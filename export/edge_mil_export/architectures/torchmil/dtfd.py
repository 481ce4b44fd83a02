"""DTFDMIL of torchmil: attention over groups, then attention over what the groups give."""

from __future__ import annotations

import torch
from torch import nn

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
from edge_mil_export.architectures.torchmil.attention import (
    FEATURE_ACTIVATION,
    feature_network,
    feature_width,
    torchmil_attention,
)


@architecture(
    "dtfd_torchmil",
    keys=("attention_pool.fc1.module.weight", "u_attention_pool.fc1.module.weight"),
    row=12,
)
class DtfdTorchmil(Head):
    """Two tiers of attention with a tanh; groups without an instance are left out.

    With max and maxmin every instance of each group goes on, so that the second tier's attention
    over the whole bag is the score, whatever the groups (twice over, with maxmin).

    Source:
        Franblueee/torchmil, torchmil/models/dtfdmil.py.
    """

    options = (
        Option("distill", ("afs", "max", "maxmin"), "what each group gives"),
        Option("groups", INTEGER, "the division into groups", only_with=("distill", ("afs",))),
        FEATURE_ACTIVATION,
    )
    sigmoid = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.first, width = torchmil_attention(reader, "attention_pool", "tanh")
        self.second, _ = torchmil_attention(reader, "u_attention_pool", "tanh")
        self.embed = feature_network(reader, options)
        reader.ignore(["classifier.module."])  # the first tier's, a loss only
        self.last = reader.linear("u_classifier.module", width, bias=None)
        self.groups = int(options.get("groups", 0))
        self.pooling = "dtfd_filled" if self.groups else "attention"
        self.feature_dim, self.value_dim = feature_width(reader, width), width
        self.channels, self.outputs = 1, self.last.out_features

    @property
    def has_classifier(self) -> bool:
        return not self.groups

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.embed(features)
        return h, self.first(h) if self.groups else self.second(h)

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(pooled.flatten(1))
        return logits

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logit (1,) of a bag (n, d), its rows dealt to the groups in turn."""
        if not self.groups:
            return super().forward(features)
        h, logits = self.attend(features)
        vectors = []
        for group in range(min(self.groups, len(h))):
            weights = torch.softmax(logits[group :: self.groups], dim=0)
            vectors.append(weights.T @ h[group :: self.groups])
        distilled = torch.cat(vectors)
        weights = torch.softmax(self.second(distilled), dim=0)
        found: torch.Tensor = self.last(weights.T @ distilled)[0]
        return found

    def arrays(self) -> Arrays:
        if not self.groups:
            return {}
        second = {"branch": self.second.branch, "gate": self.second.gate}
        return arrays_of({**second, "attention": self.second.last, "classifier": self.last})

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        made: dict[str, nn.Module] = {
            "feat_ext.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "u_classifier.module": nn.Linear(FRESH_WIDTH, outputs),
        }
        for at in ("attention_pool", "u_attention_pool"):
            made[f"{at}.fc1.module"] = nn.Linear(FRESH_WIDTH, FRESH_HIDDEN)
            made[f"{at}.fc2"] = nn.Linear(FRESH_HIDDEN, 1, bias=False)
        return fresh_parts(made)
