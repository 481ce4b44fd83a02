"""TransMIL, and MHIM-MIL over a transformer."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from edge_mil.errors import NotThereYetError
from edge_mil_export.architectures.head import WholeBagHead, activation
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.nystrom import (
    GridConvolution,
    NystromLayer,
    fresh_grid,
    fresh_nystrom,
)
from edge_mil_export.architectures.options import ACTIVATION, BOOLEAN, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

SMALLEST_GRID = 7
"""MHIM-MIL's grids are at least as large as their largest kernel."""


class TransformerHead(WholeBagHead):
    """Embeds each instance; `edge_mil.aggregators.whole_bag.transmil` does the rest."""

    order = "grid"

    def assemble(
        self,
        reader: StateDictReader,
        embed: nn.Sequential,
        prefix: str,
        *,
        grid: str,
        head: str,
        keep_last: bool,
    ) -> None:
        """Build the layers.

        Args:
            reader: The state dict.
            embed: A linear layer and its activation.
            prefix: Before the keys of the transformer.
            grid: Name of the grid convolution.
            head: Prefix of the classifier.
            keep_last: Which rows Nystrom attention returns.
        """
        first = embed[0]
        assert isinstance(first, nn.Linear)
        width = first.out_features
        self.embed = embed
        self.cls_token = nn.Parameter(reader.tensor(f"{prefix}cls_token", 1, 1, width).clone())
        self.layer1, self.layer2 = (
            NystromLayer(reader, f"{prefix}{name}", width, keep_last=keep_last)
            for name in ("layer1", "layer2")
        )
        self.grid = GridConvolution(reader, f"{prefix}{grid}", width)
        self.norm = reader.layer_norm(f"{prefix}norm", width)
        self.last = reader.linear(head, width)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = 0, self.last.out_features

    def arrays(self) -> Arrays:
        found = arrays_of({"cls_token": self.cls_token.flatten()})
        found |= self.layer1.arrays("layer1") | self.layer2.arrays("layer2")
        found |= self.grid.arrays("ppeg")
        return found | arrays_of({"norm": self.norm, "head": self.last})


@architecture(
    "transmil",
    keys=("_fc1.0.weight", "pos_layer.proj.weight", "layer1.attn.to_qkv.weight"),
    row=190,
)
class TransMil(TransformerHead):
    """TransMIL; its answer depends on the version of nystrom-attention that it was trained with.

    Source:
        Shao et al. 2021, arXiv:2106.00908; szc19990412/TransMIL, models/TransMIL.py, and PyPI
        nystrom-attention.
    """

    options = (
        Option(
            "nystrom",
            ("0.0.9", "later"),
            "which rows the attention of nystrom-attention 0.0.9 or of a later version returns",
        ),
    )

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "transmil"
        embed = nn.Sequential(reader.linear("_fc1.0"), nn.ReLU())
        keep_last = options["nystrom"] == "later"
        self.assemble(reader, embed, "", grid="pos_layer", head="_fc2", keep_last=keep_last)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        side = math.isqrt(len(h) - 1) + 1
        filled = torch.cat([self.cls_token[0], h, h[: side * side - len(h)]])
        filled = self.layer1(filled)
        filled = self.layer2(torch.cat([filled[:1], self.grid(filled[1:], side)]))
        logits: torch.Tensor = self.last(self.norm(filled[0]))
        return logits

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "_fc1.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "norm": nn.LayerNorm(FRESH_WIDTH),
            "_fc2": nn.Linear(FRESH_WIDTH, outputs),
        }
        return fresh_parts(parts) | _fresh_transformer("", "pos_layer")


@architecture("mhim_transmil", keys=("online_encoder.cls_token",), row=70)
class MhimTransMil(TransformerHead):
    """MHIM-MIL over a transformer: `forward_test` of the student or the teacher.

    Unlike TransMIL its attention counts each instance once, and its grid is at least 7 x 7. The
    masking is training only, and so is `merge.*` unless its authors' test merges.

    Source:
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py.
    """

    options = (
        ACTIVATION,
        Option(
            "merge_test",
            BOOLEAN,
            "the bag that the transformer takes",
            "false",
            matters=lambda state: any(key.startswith("merge.") for key in state),
        ),
    )
    training_only = ("merge.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "mhim_transmil"
        if options.get("merge_test") == "true":
            raise NotThereYetError(
                "merge_test=true is there for mhim_abmil only; without it the score is that of "
                "the authors' default test."
            )
        embed = nn.Sequential(reader.linear("feature.0"), activation(options["activation"]))
        at = "online_encoder."
        self.assemble(reader, embed, at, grid="pos_embedding", head="predictor", keep_last=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        sequence = self.layer1(torch.cat([self.cls_token[0], h]))
        rows, count = sequence[1:], len(h)
        side = math.isqrt(count - 1) + 1
        grid = torch.cat([rows, rows[: side * side - count]])
        side = max(side, SMALLEST_GRID)
        grid = functional.pad(grid, (0, 0, 0, side * side - len(grid)))
        convolved = self.grid(grid, side)[:count]
        sequence = self.layer2(torch.cat([sequence[:1], convolved]))
        logits: torch.Tensor = self.last(self.norm(sequence[0]))
        return logits

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "online_encoder.norm": nn.LayerNorm(FRESH_WIDTH),
            "predictor": nn.Linear(FRESH_WIDTH, outputs),
        }
        return fresh_parts(parts) | _fresh_transformer("online_encoder.", "pos_embedding")


def _fresh_transformer(prefix: str, grid: str) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}cls_token": torch.randn(1, 1, FRESH_WIDTH),
        **fresh_nystrom(f"{prefix}layer1", FRESH_WIDTH),
        **fresh_nystrom(f"{prefix}layer2", FRESH_WIDTH),
        **fresh_grid(f"{prefix}{grid}", FRESH_WIDTH),
    }
