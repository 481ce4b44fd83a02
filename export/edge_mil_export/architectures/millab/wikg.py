"""WiKG as MIL-Lab rewrote it: another model than the authors', with another graph attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import leaky_relu

from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

GATE = "readout.gate_nn.0.weight"
ACTIVATIONS = {"leaky_relu": leaky_relu, "relu": torch.relu, "tanh": torch.tanh}


@architecture(
    "wikg_millab", keys=("patch_embed.0.weight", "W_head.weight", "W_tail.weight"), row=209
)
class WikgMillab(WholeBagHead):
    """A graph of the nearest instances, then gate pooling, or their mean or maximum.

    Neighbours are weighed by a dot product. Instance and neighbours are mixed as the keys tell:
    bi-interaction (`linear1`, `linear2`), their sum (`linear` as wide as an embedding) or side by
    side (`linear` twice as wide). `gate_U`, `gate_V` and `gate_W` are never used.

    Source:
        Li et al. 2024, arXiv:2403.07719; mahmoodlab/MIL-Lab, src/models/wikg.py (layout only).
    """

    options = (
        Option("topk", INTEGER, "how many others each instance attends"),
        Option("activation", tuple(ACTIVATIONS), "how an instance is mixed with its neighbours"),
        Option(
            "pooling",
            ("mean", "max"),
            "how instances become the slide's vector",
            matters=lambda state: GATE not in state,
        ),
    )
    training_only = ("gate_U.", "gate_V.", "gate_W.")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.topk = "wikg_millab", int(options["topk"])
        self.activation = options["activation"]
        first = reader.linear("patch_embed.0")
        self.embed, width = nn.Sequential(first, nn.ReLU()), first.out_features
        self.head = reader.linear("W_head", width, width)
        self.tail = reader.linear("W_tail", width, width)
        self.sum = self.product = self.mix = None
        if "linear1.weight" in reader:
            self.sum = reader.linear("linear1", width, width)
            self.product = reader.linear("linear2", width, width)
        else:
            self.mix = reader.linear("linear", None, width)
            if self.mix.in_features not in (width, 2 * width):
                raise ArchitectureError(
                    f"linear takes {self.mix.in_features} numbers, and an embedding has {width}"
                )
        self.gate_in = self.gate_out = None
        if GATE in reader:
            self.gate_in = reader.linear("readout.gate_nn.0", width)
            self.gate_out = reader.linear("readout.gate_nn.2", self.gate_in.out_features, 1)
        self.readout = options.get("pooling", "gate")
        self.norm = reader.layer_norm("norm", width)
        self.classifier = reader.linear("classifier", width)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = int(GATE in reader), self.classifier.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) of a whole bag (n, d), n at least topk."""
        h = self.embed(features)
        h = (h + h.mean(dim=0)) / 2
        heads, tails = self.head(h), self.tail(h)
        products, near = torch.topk(heads @ tails.T * heads.shape[1] ** -0.5, self.topk)
        shares = torch.softmax(products, dim=1)[:, :, None]
        others = tails[near]
        gates = torch.tanh(heads[:, None] + shares * others)
        weights = torch.softmax((others * gates).sum(dim=2), dim=1)
        mixed = self._mixed(heads, (weights[:, :, None] * others).sum(dim=1))
        if self.gate_in is not None and self.gate_out is not None:
            gate = torch.softmax(self.gate_out(leaky_relu(self.gate_in(mixed))), dim=0)
            pooled = gate.T @ mixed
        elif self.readout == "mean":
            pooled = mixed.mean(dim=0, keepdim=True)
        else:
            pooled = mixed.amax(dim=0, keepdim=True)
        logits: torch.Tensor = self.classifier(self.norm(pooled))[0]
        return logits

    def _mixed(self, heads: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        act = ACTIVATIONS[self.activation]
        if self.sum is not None and self.product is not None:
            mixed: torch.Tensor = act(self.sum(heads + neighbours))
            return mixed + act(self.product(heads * neighbours))
        assert self.mix is not None
        both = heads + neighbours
        if self.mix.in_features > heads.shape[1]:
            both = torch.cat([heads, neighbours], dim=1)
        return act(self.mix(both))

    def arrays(self) -> Arrays:
        return arrays_of(
            {
                "head": self.head,
                "tail": self.tail,
                "sum": self.sum,
                "product": self.product,
                "mix": self.mix,
                "gate.0": self.gate_in,
                "gate.2": self.gate_out,
                "norm": self.norm,
                "classifier": self.classifier,
            }
        )

    def describe(self) -> str:
        if self.mix is None:
            return "bi-interaction"
        return "gcn" if self.mix.in_features == self.value_dim else "sage"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width, half = FRESH_WIDTH, FRESH_WIDTH // 2
        return fresh_parts(
            {
                "patch_embed.0": nn.Linear(feature_dim, width),
                "W_head": nn.Linear(width, width),
                "W_tail": nn.Linear(width, width),
                "linear1": nn.Linear(width, width),
                "linear2": nn.Linear(width, width),
                "norm": nn.LayerNorm(width),
                "classifier": nn.Linear(width, outputs),
                "readout.gate_nn.0": nn.Linear(width, half),
                "readout.gate_nn.2": nn.Linear(half, 1),
            }
        )
