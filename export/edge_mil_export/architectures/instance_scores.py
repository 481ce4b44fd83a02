"""Heads of instance scores: their mean probability, their largest margin, or cluster shares."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import NUMBER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FRESH_CLUSTERS = 12
"""Of a fresh head."""


def relu_layers(reader: StateDictReader, prefix: str) -> tuple[nn.Sequential, int, int]:
    """Return numbered linear layers with a relu between them.

    Args:
        reader: The state dict.
        prefix: Before the numbers.

    Returns:
        The layers, the inputs of the first and the outputs of the last.
    """
    width = inputs = reader.tensor(f"{prefix}.0.weight", None, None).shape[1]
    layers: list[nn.Module] = []
    for index in reader.indices(f"{prefix}."):
        layer = reader.linear(f"{prefix}.{index}", width)
        width = layer.out_features
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]), inputs, width


@architecture(
    "mean_probability", keys=("instance_classifier.0.weight", "!feature.0.weight"), row=256
)
class MeanProbability(Head):
    """The mean of the instances' probabilities, as learning from label proportions has it.

    That is not the softmax of the mean logits. The bag's logits are the logarithm of the mean
    probabilities, or with one output its log-odds; both are kept as logarithms throughout, so that
    a probability near 0 or 1 is not rounded away. The names of the keys are ours: no public code is
    known, and the tests compare with a slow reference.

    Source:
        Ardehaly and Culotta 2017, doi:10.1109/ICDMW.2017.144 (learning from label proportions).
    """

    readings = ("classification",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.channels = "mean_probability", 0
        self.network, self.feature_dim, self.outputs = relu_layers(reader, "instance_classifier")
        self.value_dim = max(self.outputs, 2)

    @property
    def has_classifier(self) -> bool:
        return self.outputs == 1

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return log probabilities (n, c); with one output those of yes and no, (n, 2)."""
        logits = self.network(features)
        if self.outputs == 1:
            logs = torch.cat([logsigmoid(logits), logsigmoid(-logits)], dim=1)
        else:
            logs = torch.log_softmax(logits, dim=1)
        return logs, logs

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the logits (b, c) of mean probabilities, given as logarithms (b, 1, v)."""
        flat = pooled.flatten(1)
        return flat if self.outputs > 1 else flat[:, :1] - flat[:, 1:]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logs, _ = self.attend(features)
        count = torch.tensor(float(len(logs)))
        return self.classify((torch.logsumexp(logs, dim=0) - torch.log(count))[None, None])[0]

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "instance_classifier.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "instance_classifier.2": nn.Linear(FRESH_WIDTH, outputs),
            }
        )


@architecture("max_margin", keys=("coef", "intercept"), row=258)
class MaxMargin(Head):
    """The largest margin of an instance for each class: a linear max-margin probe (sAwMIL).

    A margin is no log-odds, so there are no probabilities before a calibration. The authors keep
    Python objects and no tensors, so the names of the keys are ours: `coef` (c, d), `intercept`
    (c,), and perhaps `scaler.mean` and `scaler.scale` (d,). The tests compare with a slow
    reference.

    Source:
        Savcisens and Eliassi-Rad 2025, arXiv:2506.23921; carlomarxdk/trilemma-of-truth,
        probes/sawmil.py.
    """

    readings = ("classification",)
    has_probabilities = False

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.channels = "max", 0
        weight = reader.tensor("coef", None, None)
        self.outputs = self.value_dim = len(weight)
        self.feature_dim = weight.shape[1]
        bias = reader.tensor("intercept", self.outputs)
        self.mean = self.scale = None
        if "scaler.mean" in reader or "scaler.scale" in reader:
            self.mean = nn.Parameter(reader.tensor("scaler.mean", self.feature_dim).clone())
            self.scale = nn.Parameter(reader.tensor("scaler.scale", self.feature_dim).clone())
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scaled = features
        if self.mean is not None and self.scale is not None:
            scaled = (features - self.mean) / self.scale
        margins = scaled @ self.weight.T + self.bias
        return margins, margins

    def describe(self) -> str:
        return "margins, which are no probabilities"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        layer = nn.Linear(feature_dim, outputs)
        return {"coef": layer.weight.detach(), "intercept": layer.bias.detach()}


@architecture("cluster_share", keys=("centroids", "classifier.weight"), row=257)
class ClusterShare(Head):
    """The share of each cluster among the instances, then a classifier (DCEAC and its like).

    Instances belong to clusters softly, by Student's t, or to the nearest one. No public code is
    known, so the names of the keys are ours (`encoder.0`, `encoder.2`, which may be absent,
    `centroids` (k, l), `classifier`), and the tests compare with a slow reference.

    Source:
        Xie, Girshick and Farhadi 2016, arXiv:1511.06335, eq. 1, for the soft assignment.
    """

    options = (
        Option("assignment", ("student_t", "hard"), "the clusters of each instance"),
        Option("alpha", NUMBER, "how softly", "1", only_with=("assignment", ("student_t",))),
    )

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.channels = "mean", 0
        self.encoder: nn.Module = nn.Identity()
        centroids = reader.tensor("centroids", None, None)
        self.value_dim, width = centroids.shape
        self.feature_dim = width
        if "encoder.0.weight" in reader:
            self.encoder, self.feature_dim, found = relu_layers(reader, "encoder")
            reader.tensor("centroids", None, found)
        self.centroids = nn.Parameter(centroids.clone())
        self.alpha = float(options["alpha"]) if "alpha" in options else None
        self.classifier = reader.linear("classifier", self.value_dim)
        self.outputs = self.classifier.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each instance's share in the clusters, (n, k)."""
        z = self.encoder(features)
        distances = ((z[:, None] - self.centroids) ** 2).sum(dim=2)
        if self.alpha is None:
            shares = torch.eye(self.value_dim)[distances.argmin(dim=1)]
        else:
            power = -(self.alpha + 1) / 2
            shares = torch.softmax(power * torch.log1p(distances / self.alpha), dim=1)
        return shares, shares

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "encoder.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "encoder.2": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
            "classifier": nn.Linear(FRESH_CLUSTERS, outputs),
        }
        return fresh_parts(parts) | {"centroids": torch.randn(FRESH_CLUSTERS, FRESH_WIDTH)}
