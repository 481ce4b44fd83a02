"""TransMIL and RRT as MIL-Lab writes them: Nystrom layers, with and without a class token."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.head import WholeBagHead, activation, gated
from edge_mil_export.architectures.layers import (
    FRESH_HIDDEN,
    FRESH_WIDTH,
    Arrays,
    arrays_of,
    fresh_parts,
)
from edge_mil_export.architectures.millab.attention import embedding_layers
from edge_mil_export.architectures.nystrom import (
    NystromKeys,
    NystromLayer,
    fresh_grid,
    fresh_nystrom,
)
from edge_mil_export.architectures.options import Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.transmil import (
    NYSTROM,
    RepeatingTransformerHead,
    nystrom_arrays,
)

BLOCK_KEYS = NystromKeys(
    qkv="attention.to_qkv", out="attention.to_out.0", conv="attention.res_conv.weight"
)
RRT_KEYS = NystromKeys(norm2="norm2", mlp=("mlp.fc1", "mlp.fc2"))
RRT_LANDMARKS = 256
"""The repository's own constant, whatever the width."""


@architecture(
    "transmil_millab",
    keys=("patch_embed.0.weight", "blocks.0.attention.to_qkv.weight", "pos_layer.proj.weight"),
    row=140,
)
class TransMilMillab(RepeatingTransformerHead):
    """TransMIL with any number of layers; the version of nystrom-attention is asked for.

    Source:
        mahmoodlab/MIL-Lab, src/models/transmil.py (layout only).
    """

    options = (NYSTROM,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, keep_last = "transmil", options["nystrom"] == "later"
        embed, feature_dim, width = embedding_layers(reader)
        layers = [
            NystromLayer(reader, f"blocks.{k}", width, keep_last=keep_last, keys=BLOCK_KEYS)
            for k in reader.indices("blocks.")
        ]
        self.assemble(
            reader,
            embed,
            "",
            feature_dim=feature_dim,
            layers=layers,
            grid="pos_layer",
            head="classifier",
        )

    def describe(self) -> str:
        return f"{len(self.layers)} layers"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "norm": nn.LayerNorm(FRESH_WIDTH),
            "classifier": nn.Linear(FRESH_WIDTH, outputs),
        }
        state = fresh_parts(parts) | fresh_grid("pos_layer", FRESH_WIDTH)
        for block in ("blocks.0", "blocks.1"):
            layer = fresh_nystrom(block, FRESH_WIDTH)
            state |= {key.replace(".attn.", ".attention."): t for key, t in layer.items()}
        return state | {"cls_token": torch.randn(1, 1, FRESH_WIDTH)}


@architecture(
    "rrt_millab",
    keys=("patch_embed.0.weight", "encoder.layer1.attn.to_qkv.weight"),
    row=141,
)
class RrtMillab(WholeBagHead):
    """MIL-Lab's RRT, which has no regions: Nystrom layers, then attention pooling.

    The encoder does not hand its attention's name on, so that every layer is Nystrom attention, and
    region_num, epeg and pos change nothing.

    Source:
        mahmoodlab/MIL-Lab, src/models/rrt.py (layout only).
    """

    options = (
        Option(
            "activation",
            ("relu", "gelu"),
            "the embedding of each instance",
        ),
        Option("attention_activation", ("relu", "gelu", "tanh"), "the attention of each instance"),
    )
    order = "grid"

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "nystrom_pool"
        first = reader.linear("patch_embed.0")
        width = first.out_features
        self.embed = nn.Sequential(first, activation(options["activation"]))
        names = [f"encoder.layers.{k}" for k in reader.indices("encoder.layers.")]
        self.layers = nn.ModuleList(
            NystromLayer(
                reader, name, width, keep_last=True, keys=RRT_KEYS, landmarks=RRT_LANDMARKS
            )
            for name in ["encoder.layer1", *names]
        )
        self.norm = reader.layer_norm("encoder.norm", width)
        at = "encoder.pool_fn.attention.attention"
        names_of_pool = (f"{at}.0", "", f"{at}.2")
        self.attention = gated(
            reader,
            *names_of_pool,
            width,
            bias=None,
            branch_activation=options["attention_activation"],
        )
        self.classifier = reader.linear("classifier", width)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = self.attention.channels, self.classifier.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)
        pooled = torch.softmax(self.attention(h), dim=0).T @ h
        logits: torch.Tensor = self.classifier(pooled)[0]
        return logits

    def arrays(self) -> Arrays:
        found = nystrom_arrays(self.layers)
        found |= arrays_of({"norm": self.norm, "classifier": self.classifier})
        pool = self.attention
        return found | arrays_of({"attention.0": pool.branch, "attention.2": pool.last})

    def describe(self) -> str:
        return f"{len(self.layers)} layers, no regions"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        at = "encoder.pool_fn.attention.attention"
        parts: dict[str, nn.Module] = {
            "patch_embed.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "encoder.norm": nn.LayerNorm(FRESH_WIDTH),
            f"{at}.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN, bias=False),
            f"{at}.2": nn.Linear(FRESH_HIDDEN, 1, bias=False),
            "classifier": nn.Linear(FRESH_WIDTH, outputs),
        }
        return {
            **fresh_parts(parts),
            **fresh_nystrom("encoder.layer1", FRESH_WIDTH),
            **fresh_nystrom("encoder.layers.0", FRESH_WIDTH),
        }
