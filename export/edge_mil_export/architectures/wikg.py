"""WiKG: a graph of the nearest instances, then attention pooling."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import leaky_relu

from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


@architecture(
    "wikg", keys=("W_head.weight", "readout.gate_nn.0.weight", "!patch_embed.0.weight"), row=210
)
class Wikg(WholeBagHead):
    """WiKG: a graph of the nearest instances, built for each bag, then attention pooling.

    `gate_U`, `gate_V` and `gate_W` are in the file and the official class never uses them.

    Source:
        Li et al. 2024, arXiv:2403.07719; WonderLandxD/WiKG, model.py.
    """

    options = (Option("topk", INTEGER, "how many others each instance attends"),)
    training_only = ("gate_U.", "gate_V.", "gate_W.")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.topk = "wikg", int(options["topk"])
        first = reader.linear("_fc1.0", bias=None)
        self.embed, width = nn.Sequential(first, nn.LeakyReLU()), first.out_features
        self.head = reader.linear("W_head", width, width, bias=None)
        self.tail = reader.linear("W_tail", width, width, bias=None)
        self.sum = reader.linear("linear1", width, width, bias=None)
        self.product = reader.linear("linear2", width, width, bias=None)
        self.gate_in = reader.linear("readout.gate_nn.0", width, bias=None)
        self.gate_out = reader.linear("readout.gate_nn.2", self.gate_in.out_features, 1, bias=None)
        self.norm = reader.layer_norm("norm", width)
        self.classifier = reader.linear("fc", width, bias=None)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = 1, self.classifier.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) of a whole bag (n, d), n at least topk."""
        h = self.embed(features)
        h = (h + h.mean(dim=0)) / 2
        heads, tails = self.head(h), self.tail(h)
        products, near = torch.topk(heads @ tails.T * heads.shape[1] ** -0.5, self.topk)
        shares = torch.softmax(products, dim=1)[:, :, None]
        own, others = heads[:, None], tails[near]
        gates = torch.tanh(own + shares * others + (1 - shares) * own)
        # As published: two sums multiplied, where a dot product was meant.
        weights = torch.softmax(others.sum(dim=2) * gates.sum(dim=2), dim=1)
        neighbours = (weights[:, :, None] * others).sum(dim=1)
        mixed = leaky_relu(self.sum(heads + neighbours)) + leaky_relu(
            self.product(heads * neighbours)
        )
        gate = torch.softmax(self.gate_out(leaky_relu(self.gate_in(mixed))), dim=0)
        logits: torch.Tensor = self.classifier(self.norm(gate.T @ mixed))[0]
        return logits

    def arrays(self) -> Arrays:
        return arrays_of(
            {
                "head": self.head,
                "tail": self.tail,
                "sum": self.sum,
                "product": self.product,
                "gate.0": self.gate_in,
                "gate.2": self.gate_out,
                "norm": self.norm,
                "classifier": self.classifier,
            }
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width, half = FRESH_WIDTH, FRESH_WIDTH // 2
        return fresh_parts(
            {
                "_fc1.0": nn.Linear(feature_dim, width),
                "W_head": nn.Linear(width, width),
                "W_tail": nn.Linear(width, width),
                "linear1": nn.Linear(width, width),
                "linear2": nn.Linear(width, width),
                "norm": nn.LayerNorm(width),
                "fc": nn.Linear(width, outputs),
                "readout.gate_nn.0": nn.Linear(width, half),
                "readout.gate_nn.2": nn.Linear(half, 1),
            }
        )
