"""TransMIL as torchmil writes it: its attention has no convolution and no last projection."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.nystrom import (
    NystromKeys,
    NystromLayer,
    fresh_grid,
)
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.architectures.transmil import RepeatingTransformerHead

HEADS = Option("heads", INTEGER, "every attention")
TORCHMIL_KEYS = NystromKeys(
    norm="norm1",
    qkv="att_module.qkv_nn",
    out="",
    conv="",
    norm2="norm2",
    mlp=("mlp_module.0", "mlp_module.3"),
)


@architecture(
    "transmil_torchmil",
    keys=("layers.0.att_module.qkv_nn.weight", "pos_layer.proj.weight", "classifier.weight"),
    row=143,
)
class TransMilTorchmil(RepeatingTransformerHead):
    """TransMIL with one bag logit; `fc1` is absent where the widths agree.

    Source:
        Franblueee/torchmil, torchmil/models/transmil.py.
    """

    options = (HEADS,)
    sigmoid = True

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "transmil"
        width = reader.tensor("cls_token", 1, 1, None).shape[2]
        embed: nn.Module = nn.Identity()
        feature_dim = width
        if "fc1.weight" in reader:
            embed = first = reader.linear("fc1", None, width)
            feature_dim = first.in_features
        heads = int(options["heads"])
        layers = [
            NystromLayer(
                reader, f"layers.{k}", width, keep_last=True, keys=TORCHMIL_KEYS, heads=heads
            )
            for k in reader.indices("layers.")
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
        self.has_attend = feature_dim != width or "fc1.weight" in reader  # type: ignore[misc] # per file

    def describe(self) -> str:
        return f"{len(self.layers)} layers"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "fc1": nn.Linear(feature_dim, FRESH_WIDTH),
            "norm": nn.LayerNorm(FRESH_WIDTH),
            "classifier": nn.Linear(FRESH_WIDTH, outputs),
        }
        for k in range(2):
            parts[f"layers.{k}.norm1"] = nn.LayerNorm(FRESH_WIDTH)
            parts[f"layers.{k}.att_module.qkv_nn"] = nn.Linear(
                FRESH_WIDTH, 3 * FRESH_WIDTH, bias=False
            )
        token = {"cls_token": torch.randn(1, 1, FRESH_WIDTH)}
        return fresh_parts(parts) | fresh_grid("pos_layer", FRESH_WIDTH) | token
