"""Two small heads whose results are known beforehand, to check the unit tests with."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.audit.unit_tests import WIDTH

HIDDEN = 64


class EmbeddingMean(nn.Module):
    """The mean of embedded instances, then a linear layer: can cheat, as the paper says it must.

    Source:
        Raff and Holt 2023, arXiv:2310.17867.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU())
        self.classifier = nn.Linear(HIDDEN, 1)

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        """Return one logit (1,) of a bag (n, d)."""
        logit: torch.Tensor = self.classifier(self.embed(bag).mean(dim=0))
        return logit


class InstanceMax(nn.Module):
    """The largest logit of an instance: adding an instance can never lower it, so it respects."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        """Return one logit (1,) of a bag (n, d)."""
        logit: torch.Tensor = self.network(bag).amax(dim=0)
        return logit


REFERENCES: dict[str, type[nn.Module]] = {
    "embedding_mean": EmbeddingMean,
    "instance_max": InstanceMax,
}
"""Names that `edge-mil-export audit` takes beside those of the heads."""
