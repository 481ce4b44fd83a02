"""WeakSTIL: a percentage for every tile, and their attention-weighted mean for the slide."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import Head, gated
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

PERCENT = 100.0


@architecture("weakstil", keys=("regressor.*.weight",), row=450)
class WeakStil(Head):
    """A regressor of tiles: each tile has a percentage, and the slide's is their weighted mean.

    value = sum_i a_i f(h_i), with f the regressor, a the softmax of attention over the tiles (or
    1 / n where the file has no attention) and h the feature, after the encoder where there is one.
    The value is a percentage of stromal tumour-infiltrating lymphocytes, and so is each tile's.

    No official checkpoint, output or code was at hand, so the formula is the paper's idea and the
    key layout is ours, with the attention named as the authors name it in NKI-AI's
    dlup-lightning-mil: `encoder.N` (optional, ReLU after each), `regressor.N` (ReLU between, one
    output), and `attention.0` and `attention.2`, or `attention_V.0`, `attention_U.0` and
    `attention_weights`, or none of them. It is tested against a slow reference of the formula.

    Source:
        Schirris, Engelaer, Panteli, Horlings, Gavves and Teuwen 2022, arXiv:2109.05892. Attention:
        Ilse, Tomczak and Welling 2018, arXiv:1802.04712, eq. 8 and 9.
    """

    options = (
        Option(
            "output", ("percent", "fraction", "sigmoid"), "the unit of the regressor, and its score"
        ),
    )
    kind = "regression"
    output_names = ("stil_percent",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.output = options["output"]
        self.encoder = _layers(reader, "encoder", None)
        self.regressor = _layers(reader, "regressor", _width(self.encoder))
        first = (self.encoder or self.regressor)[0]
        if _width(self.regressor) != 1:
            raise ArchitectureError(
                f"its regressor has {_width(self.regressor)} outputs and should have one"
            )
        self.feature_dim, self.value_dim, self.outputs = _inputs(first), 1, 1
        width, self.attention = _inputs(self.regressor[0]), None
        if "attention.0.weight" in reader:
            self.attention = gated(reader, "attention.0", "", "attention.2", width)
        elif "attention_V.0.weight" in reader:
            names = ("attention_V.0", "attention_U.0", "attention_weights")
            self.attention = gated(reader, *names, width)
        self.channels = 0 if self.attention is None else self.attention.channels
        self.pooling = "mean" if self.attention is None else "attention"
        if self.channels > 1:
            raise ArchitectureError(f"its attention has {self.channels} channels, not one")

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each tile's percentage (n, 1) and its attention logit."""
        h = features
        for layer in self.encoder:
            h = torch.relu(layer(h))
        values = h
        for number, layer in enumerate(self.regressor):
            values = layer(torch.relu(values) if number else values)
        if self.output == "sigmoid":
            values = torch.sigmoid(values)
        if self.output != "percent":
            values = PERCENT * values
        return values, values if self.attention is None else self.attention(h)

    def describe(self) -> str:
        if self.attention is None:
            return "tiles weighted alike"
        return "plain attention" if self.attention.gate is None else "gated attention"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "encoder.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "regressor.0": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                "regressor.2": nn.Linear(FRESH_WIDTH, 1),
                "attention_V.0": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                "attention_U.0": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                "attention_weights": nn.Linear(FRESH_WIDTH, 1),
            }
        )


def _layers(reader: StateDictReader, prefix: str, inputs: int | None) -> nn.ModuleList:
    """Return the linear layers under a prefix in their order; numbers between are activations."""
    layers: list[nn.Linear] = []
    for number in reader.indices(f"{prefix}."):
        layers.append(reader.linear(f"{prefix}.{number}", inputs, bias=None))
        inputs = layers[-1].out_features
    return nn.ModuleList(layers)


def _width(layers: nn.ModuleList) -> int | None:
    """Return the width of what layers give; None where there are none."""
    return len(layers[-1].get_parameter("weight")) if len(layers) else None


def _inputs(layer: nn.Module) -> int:
    return int(layer.get_parameter("weight").shape[1])
