"""TransformerABMIL of torchmil: a transformer over the features, then attention pooling."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_HIDDEN, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.nystrom import read_mlp
from edge_mil_export.architectures.options import BOOLEAN, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.torchmil.attention import (
    ATTENTION_ACTIVATION,
    FEATURE_ACTIVATION,
    feature_network,
    feature_width,
    torchmil_attention,
)
from edge_mil_export.architectures.transformer import HEADS, AttentionLayer, layer_arrays

MLP = ("mlp_module.0", "mlp_module.3")


@architecture(
    "transformer_abmil_torchmil",
    keys=("transformer_encoder.layers.0.att_module.qkv_nn.weight", "pool.fc1.module.weight"),
    row=139,
)
class TransformerAbmilTorchmil(WholeBagHead):
    """Layers of attention between all instances, attention pooling, one bag logit.

    With add_self the network's input is added after every layer.

    Source:
        Franblueee/torchmil, torchmil/models/transformer_abmil.py.
    """

    options = (
        HEADS,
        ATTENTION_ACTIVATION,
        Option("add_self", BOOLEAN, "what every layer gives", "true"),
        FEATURE_ACTIVATION,
    )
    sigmoid = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.add_self = "transformer", options["add_self"] == "true"
        self.attention, width = torchmil_attention(reader, "pool", options["attention_activation"])
        self.embed = feature_network(reader, options)
        self.feature_dim = feature_width(reader, width)
        self.has_attend = "feat_ext.0.weight" in reader  # type: ignore[misc] # per file
        layers = []
        for k in reader.indices("transformer_encoder.layers."):
            at = f"transformer_encoder.layers.{k}"
            norm = reader.layer_norm(f"{at}.norm1", width)
            qkv = reader.linear(f"{at}.att_module.qkv_nn", width, 3 * width, bias=None)
            mlp = read_mlp(reader, at, "norm2", MLP, width)
            layers.append(AttentionLayer(norm, qkv, None, mlp, int(options["heads"])))
        self.layers = nn.ModuleList(layers)
        self.norm = reader.layer_norm("transformer_encoder.norm", width)
        self.last = reader.linear("last_layer", self.attention.channels * width)
        self.value_dim, self.channels = width, self.attention.channels
        self.outputs = self.last.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = given = self.embed(features)
        for layer in self.layers:
            x = layer(x)
            if self.add_self:
                x = x + given
        h = self.norm(x)
        pooled = torch.softmax(self.attention(h), dim=0).T @ h
        logits: torch.Tensor = self.last(pooled.flatten())
        return logits

    def arrays(self) -> Arrays:
        pool = self.attention
        parts = {"norm": self.norm, "head": self.last, "pool.branch": pool.branch}
        found = layer_arrays(self.layers)
        found |= arrays_of({**parts, "pool.gate": pool.gate, "pool.last": pool.last})
        return found | {"add_self": np.array(self.add_self)}

    def describe(self) -> str:
        return f"{len(self.layers)} layers"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width = feature_dim
        parts: dict[str, nn.Module] = {
            "pool.fc1.module": nn.Linear(width, FRESH_HIDDEN),
            "pool.fc2": nn.Linear(FRESH_HIDDEN, 1, bias=False),
            "transformer_encoder.norm": nn.LayerNorm(width),
            "last_layer": nn.Linear(width, outputs),
        }
        for k in range(2):
            at = f"transformer_encoder.layers.{k}"
            parts[f"{at}.norm1"] = nn.LayerNorm(width)
            parts[f"{at}.att_module.qkv_nn"] = nn.Linear(width, 3 * width, bias=False)
        return fresh_parts(parts)
